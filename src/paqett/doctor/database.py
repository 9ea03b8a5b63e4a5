"""What `paqett migrate` made in the database, and whether it is still so."""

from datetime import datetime, timedelta

import msgspec

from paqett import grafana, jobs, retention
from paqett.db import Connection
from paqett.doctor.findings import Finding
from paqett.sqlfiles import query

_WATCH_LATE = timedelta(minutes=1)
_POLICY_LATE = timedelta(hours=6)  # they run each hour


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
    """Edition, REVOKEs, jobs, SQL logins and their watch, and the state of every retention."""
    logins = await grafana.state(conn)
    found = [_edition_finding(await edition(conn)), await _revokes(conn), await _jobs(conn)]
    found += [_logins_finding(logins), _watch_finding(logins, now)]
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


async def _jobs(conn: Connection) -> Finding:
    counted = await jobs.counts(conn)
    detail = f"{counted['todo']} to do, {counted['doing']} in hand, {counted['failed']} failed"
    if counted["failed"]:
        mend = "`paqett admin jobs` tells why, `paqett admin retry-job ID` tries one again"
        return Finding("jobs", "warning", detail, mend)
    return Finding("jobs", "ok", detail)


def _logins_finding(found: grafana.State) -> Finding:
    """Roles' attributes, and what PostgreSQL leaves open to any login."""
    subject = "sql logins"
    migrate = "run `paqett migrate` with a superuser's PAQETT_DATABASE__URL"
    if not found.can_create and not found.logins:
        return Finding(subject, "ok", "refused: this server's roles were not made by a superuser")
    if not found.can_create or not found.closed:
        detail = f"{found.open_routines} routines and {found.open_tables} tables are open to PUBLIC"
        if found.open_temporary:
            detail += ", and so are temporary tables"
        return Finding(subject, "failed", detail, migrate)
    if found.odd_logins or found.stray_roles:
        detail = f"{found.odd_logins} are not as they were made, {found.stray_roles} are nobody's"
        mend = "compare pg_roles with admin.sql_logins; drop what is not known"
        return Finding(subject, "failed", detail, mend)
    if found.logins and found.prepared_transactions:
        detail = "max_prepared_transactions lets a login leave locks behind"
        return Finding(subject, "warning", detail, "set max_prepared_transactions = 0")
    return Finding(subject, "ok", f"{found.logins}, apart from one another")


def _watch_finding(found: grafana.State, now: datetime) -> Finding:
    if not found.logins:
        return Finding("watch", "ok", "no SQL logins to watch")
    seen = found.watched_at
    detail = f"last looked {seen.isoformat() if seen else 'never'}"
    if seen is None or now - seen > _WATCH_LATE:
        return Finding("watch", "failed", detail, "start `paqett worker`")
    return Finding("watch", "ok", detail)


def _tier_finding(state: retention.TierState, now: datetime) -> Finding:
    oldest = state.oldest.isoformat() if state.oldest else "none"
    detail = (
        f"{state.retention.days} days, by {state.retention_by}, oldest reading {oldest},"
        f" {len(state.jobs)} policies"
    )
    if state.jobs and state.by_worker:
        detail += ", which rest while readings move out of it: the worker drops what has expired"
    if state.jobs and state.columnstore_after:
        detail += f", columnstore after {state.columnstore_after.days} days"
    if state.overdue(now):
        return Finding(f"tier {state.name}", "failed", detail, "start `paqett worker`; see its log")
    if state.retention_by == "timescaledb" and len(state.jobs) != 2:
        return Finding(f"tier {state.name}", "failed", detail, "run `paqett migrate`")
    return _policies_finding(state, detail, now)


def _policies_finding(state: retention.TierState, detail: str, now: datetime) -> Finding:
    """Whether TimescaleDB carries out what it was told; it fails without a word."""
    subject = f"tier {state.name}"
    running = [job for job in state.jobs if job["scheduled"]]
    failing = [job for job in running if job["last_run_status"] == "Failed"]
    if failing:
        job = failing[0]
        detail += f"; the policy of {job['hypertable']} failed, {job['total_failures']} times"
        mend = f"`CALL run_job({job['job_id']})` says why; see timescaledb_information.job_errors"
        return Finding(subject, "failed", detail, mend)
    last = [job["last_successful_finish"] for job in running if job["last_successful_finish"]]
    if last and now - min(last) > _POLICY_LATE:
        detail += f"; a policy has not run since {min(last).isoformat()}"
        mend = "raise timescaledb.max_background_workers and max_worker_processes; restart"
        return Finding(subject, "failed", detail, mend)
    return Finding(subject, "ok", detail)
