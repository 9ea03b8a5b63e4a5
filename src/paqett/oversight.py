"""What an operator sees of all accounts: counts, times and sizes, never readings.

Each function reads a view or function of the schema `admin`; docs/admin-sql.md shows them in SQL.
A point is one metric value.
"""

from datetime import date, datetime

import msgspec

from paqett.db import Connection
from paqett.sqlfiles import query


class AccountUsage(msgspec.Struct, frozen=True):
    """What one account used over some days; bytes are those received."""

    account_id: int
    email: str
    plan: str
    messages: int
    points: int
    late: int
    duplicates: int
    bytes: int
    rejected: int


class TierHealth(msgspec.Struct, frozen=True):
    """One tier; `policies` is 0 where the worker drops the chunks."""

    tier: str
    retention_days: int
    retention_by: str
    oldest_reading: datetime | None
    age_days: float | None
    overdue: bool
    policies: int
    last_success: datetime | None
    failures: int


class LargeDevice(msgspec.Struct, frozen=True):
    """A device by what it sent; `thing_name` is None for one deleted since."""

    device_id: str
    thing_name: str | None
    account_id: int
    email: str
    points: int
    messages: int
    bytes: int
    series: int


class LargeTable(msgspec.Struct, frozen=True):
    """A table in bytes, a hypertable with all of its chunks."""

    table_name: str
    chunks: int
    table_bytes: int
    index_bytes: int
    bytes: int


class IngestHour(msgspec.Struct, frozen=True):
    """What all accounts sent in one hour of receipt."""

    hour: datetime
    messages: int
    points: int


class JobFailure(msgspec.Struct, frozen=True):
    """A job that failed for good or is being tried again; `queue` is paqett or timescaledb."""

    queue: str
    id: int
    job: str
    status: str | None
    failures: int
    at: datetime | None


async def ingest_hours(conn: Connection, since: datetime) -> list[IngestHour]:
    """Messages and points of all accounts by hour, newest first."""
    rows = await conn.execute(query("unscoped_ingest_hours"), {"since": since})
    return [msgspec.convert(row, IngestHour) for row in await rows.fetchall()]


async def job_failures(conn: Connection, limit: int) -> list[JobFailure]:
    """Jobs that need somebody, newest first."""
    rows = await conn.execute(query("unscoped_job_failures"), {"limit": limit})
    return [msgspec.convert(row, JobFailure) for row in await rows.fetchall()]


async def last_heard(conn: Connection) -> dict[int, datetime]:
    """When each account's newest fresh reading of 7 days was received."""
    rows = await (await conn.execute(query("unscoped_silence"))).fetchall()
    return {row["account_id"]: row["received_at"] for row in rows}


async def usage(conn: Connection, since: date) -> list[AccountUsage]:
    """Every account that sent or was refused something since the UTC day `since`, most first."""
    rows = await conn.execute(query("unscoped_usage_by_account"), {"since": since})
    return [msgspec.convert(row, AccountUsage) for row in await rows.fetchall()]


async def retention(conn: Connection) -> list[TierHealth]:
    """Every tier, with its oldest reading and the state of its policies."""
    rows = await conn.execute(query("unscoped_retention"))
    return [msgspec.convert(row, TierHealth) for row in await rows.fetchall()]


async def largest_devices(conn: Connection, days: int, limit: int) -> list[LargeDevice]:
    """The devices that sent the most points in the last `days` days."""
    rows = await conn.execute(query("unscoped_largest_devices"), {"days": days, "limit": limit})
    return [msgspec.convert(row, LargeDevice) for row in await rows.fetchall()]


async def largest_tables(conn: Connection, limit: int) -> list[LargeTable]:
    """The tables that take the most room."""
    rows = await conn.execute(query("unscoped_largest_tables"), {"limit": limit})
    return [msgspec.convert(row, LargeTable) for row in await rows.fetchall()]
