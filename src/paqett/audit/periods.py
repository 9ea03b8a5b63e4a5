"""Whether everything that has a period has gone by it: the oldest of each against its age."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from paqett import register, retention
from paqett.audit.report import Finding
from paqett.db import Connection
from paqett.register import Catalog, Register
from paqett.sqlfiles import query

_DAY = timedelta(days=1)
_ROUNDS = 2  # what a round has just missed the next one takes
_START_WORKER = "start `paqett worker`; its log says what keeps it from forgetting"


def of_register(kept: Register, found: Catalog) -> list[Finding]:
    """Whether the database holds what the register names, and nothing else."""
    mend = "run `paqett migrate`; add what is new to config/personal-data.toml, or drop it"
    differing = register.differences(kept, found)
    if differing:
        return [Finding("register", "database", False, text, mend) for text in differing]
    detail = f"{len(found.tables)} tables and {len(found.views)} views are those of the register"
    return [Finding("register", "database", True, detail)]


async def of_tiers(conn: Connection, now: datetime, every: timedelta) -> list[Finding]:
    """Each tier's oldest reading against its retention; the worker looks after it `every` so often.

    At worst a reading lives a chunk and two rounds longer, and what an open move to a longer tier
    still owes as long as the move takes.
    """
    rows = await (await conn.execute(query("unscoped_moves_out"))).fetchall()
    moving = {row["tier"]: now - row["begun_at"] for row in rows}
    found = []
    for state in await retention.states(conn):
        slack = max(retention.SLACK, _DAY + _ROUNDS * every) + moving.get(state.name, timedelta())
        row = {"oldest": state.oldest, "retention": state.retention, "period": None}
        name = f"telemetry_{state.name}"
        found.append(_aged("retention", name, row, state.retention, slack, now))
    return found


async def of_tables(
    conn: Connection, kept: Register, now: datetime, rounds: Mapping[str, timedelta]
) -> list[Finding]:
    """The oldest of every other table and column with a period.

    `rounds` is how often the worker forgets what has a period of this name, and `""` everything
    else.
    """
    found = []
    for row in await (await conn.execute(query("unscoped_oldest_kept"))).fetchall():
        subject = f"{row['table_name']}: {row['part']}" if row["part"] else row["table_name"]
        slack = _ROUNDS * rounds.get(row["period"], rounds[""])
        found.append(_aged("periods", subject, row, _longest(kept, row), slack, now))
    return found


def _longest(kept: Register, row: Mapping[str, Any]) -> timedelta:
    if row["period"] == "expires":
        return timedelta()
    lengths: list[timedelta] = [kept.period(row["period"])] if row["period"] else []
    if row["retention"] is not None:
        lengths.append(row["retention"])
    return min(lengths)


def _aged(
    check: str, subject: str, row: Mapping[str, Any], longest: timedelta, slack: timedelta,
    now: datetime,
) -> Finding:  # fmt: skip
    if row["oldest"] is None:
        return Finding(check, subject, True, "there is none")
    age = now - row["oldest"]
    ended = row["period"] == "expires"
    if ended and age <= timedelta():
        return Finding(check, subject, True, "none has ended")
    detail = (
        f"the oldest ended {_days(age)} ago"
        if ended
        else f"the oldest is {_days(age)} old, its period is {_days(longest)}"
    )
    return Finding(check, subject, age <= longest + slack, detail, _START_WORKER)


def _days(length: timedelta) -> str:
    return f"{length / _DAY:.2f} days"
