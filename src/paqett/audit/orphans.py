"""Whether anything leads to an account, device or metric that is no more; and late deletions."""

from datetime import datetime, timedelta

import msgspec

from paqett.audit.report import Finding
from paqett.db import Connection
from paqett.erasure.steps import Stretch
from paqett.sqlfiles import query, readings_table, tier_query

MOST = 10_000
"""Rows are counted so far, and so many gaps between series are looked into."""
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


async def of_rows(conn: Connection, now: datetime) -> list[Finding]:
    """Rows of tables whose references the database does not hold itself."""
    values = {"most": MOST, "hour_ago": now - _HOUR, "day_ago": now - _DAY}
    rows = await (await conn.execute(query("unscoped_orphans"), values)).fetchall()
    return [
        _counted("orphans", row["table_name"], row["rows"], f"rows {row['part']}") for row in rows
    ]


async def unknown_series(conn: Connection, stretch: Stretch) -> int:
    """In how many gaps between the series there are one chunk has readings; none is right."""
    values = {"most": MOST, **stretch.span}
    statement = tier_query("unknown_readings", stretch.tier, form=stretch.form)
    row = await (await conn.execute(statement, values)).fetchone()
    return row["gaps"] if row else 0


def of_readings(looked: list[tuple[Stretch, int]]) -> list[Finding]:
    """A finding for each of the tiers' tables, from what was found in each of their chunks."""
    chunks: dict[str, list[int]] = {}
    for stretch, gaps in looked:
        chunks.setdefault(readings_table(stretch.tier, stretch.form), []).append(gaps)
    return [
        _counted(
            "orphans", name, sum(gaps > 0 for gaps in found),
            f"of {len(found)} chunks with readings of no known series",
        )
        for name, found in chunks.items()
    ]  # fmt: skip


def _counted(check: str, subject: str, rows: int, what: str) -> Finding:
    most = " or more" if rows >= MOST else ""
    mend = "see the worker's log for the deletion that left them; they belong to nobody"
    return Finding(check, subject, rows == 0, f"{rows:,}{most} {what}", mend)


class Deletions(msgspec.Struct, frozen=True):
    """How many were asked for and are open, of these late or long, and how many are done."""

    open: int
    late: int
    long: int
    done: int


async def deletions(conn: Connection, now: datetime) -> Deletions:
    """Late is an hour after its time without a beginning; long, a day after its beginning."""
    values = {"due_before": now - _HOUR, "begun_before": now - _DAY}
    row = await (await conn.execute(query("unscoped_erasure_state"), values)).fetchone()
    return msgspec.convert(row, Deletions)


def of_deletions(found: Deletions) -> Finding:
    """Whether they are carried out in time."""
    mend = "start `paqett worker`; `paqett admin jobs` tells why one failed"
    detail = (
        f"{found.open} are asked for, {found.late} should have begun, {found.long} take longer than"
        f" a day, {found.done} accounts are erased"
    )
    return Finding("erasures", "deletions", not (found.late or found.long), detail, mend)
