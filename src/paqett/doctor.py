"""`paqett doctor`: what a deployment gets wrong, each finding with the way to mend it."""

from datetime import datetime
from typing import Literal

import msgspec

from paqett import retention
from paqett.db import Connection
from paqett.sqlfiles import query


class Finding(msgspec.Struct, frozen=True):
    """One line of the report; `mend` says what to do where `state` is not ok."""

    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    mend: str = ""


class Edition(msgspec.Struct, frozen=True):
    """The extension: `license` is `apache` or `timescale` (Community)."""

    version: str
    license: str
    postgres: str


async def edition(conn: Connection) -> Edition:
    """Which TimescaleDB this is."""
    row = await (await conn.execute(query("unscoped_edition"))).fetchone()
    if row is None:
        return Edition("none", "none", "unknown")
    return Edition(row["version"], row["license"] or "unknown", row["postgres"])


async def examine(conn: Connection, now: datetime) -> list[Finding]:
    """Edition, REVOKEs, roles and the state of every tier's retention."""
    found = [_edition_finding(await edition(conn)), await _revokes(conn)]
    found += [_tier_finding(state, now) for state in await retention.states(conn)]
    return found


def _edition_finding(found: Edition) -> Finding:
    detail = f"TimescaleDB {found.version} ({found.license}) on PostgreSQL {found.postgres}"
    if found.license == "apache":
        detail += ": the worker applies retention with drop_chunks"
    return Finding("edition", "ok", detail)


async def _revokes(conn: Connection) -> Finding:
    row = await (await conn.execute(query("unscoped_open_routines"))).fetchone()
    count = row["open"] if row else 0
    if count:
        return Finding(
            "revokes",
            "failed",
            f"{count} of TimescaleDB's internal routines may be called by any SQL login",
            "run `paqett migrate` with a superuser's PAQETT_DATABASE__URL",
        )
    return Finding("revokes", "ok", "TimescaleDB's internal routines are closed to other logins")


def _tier_finding(state: retention.TierState, now: datetime) -> Finding:
    oldest = state.oldest.isoformat() if state.oldest else "none"
    detail = (
        f"{state.retention.days} days, by {state.retention_by}, oldest reading {oldest},"
        f" {len(state.jobs)} policies"
    )
    if state.overdue(now):
        return Finding(f"tier {state.name}", "failed", detail, "start `paqett worker`; see its log")
    if state.retention_by == "timescaledb" and len(state.jobs) != 2:
        return Finding(f"tier {state.name}", "failed", detail, "run `paqett migrate`")
    return Finding(f"tier {state.name}", "ok", detail)
