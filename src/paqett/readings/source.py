"""Where an account's readings stand, and how they are read while they move from tier to tier."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncCursor, errors
from psycopg.rows import tuple_row

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Invalid, NotFound
from paqett.sqlfiles import query, tier_query

# of one tier, and its like for readings that stand in two
_WHILE_MOVING = {
    "read_numbers_asc": "read_raw_asc",
    "read_numbers_desc": "read_raw_desc",
    "read_buckets": "read_buckets_moving",
    "read_bucket_sums": "read_buckets_moving",
    "read_sorted_buckets": "read_sorted_buckets_moving",
    "read_latest_numbers": "read_latest",
}


class Series(msgspec.Struct, frozen=True):
    """One metric of one device; where it is `mixed`, readings stand in both tables of a tier."""

    id: int
    device: str
    metric: str
    kind: str
    unit: str | None
    mixed: bool

    @property
    def has_texts(self) -> bool:
        """Whether some of its readings may be texts."""
        return self.mixed or self.kind == "text"

    @property
    def has_numbers(self) -> bool:
        """Whether some of its readings may be numbers or booleans."""
        return self.mixed or self.kind != "text"


class Source:
    """The series of some devices of an account, to be read as of `now`."""

    def __init__(
        self, conn: Connection, account: Account, now: datetime, found: list[Series]
    ) -> None:
        self._conn, self._account, self._now = conn, account, now
        self.series = {series.id: series for series in found}

    @property
    def oldest(self) -> datetime:
        """Nothing older is read."""
        return self._account.oldest(self._now)

    @property
    def moving(self) -> bool:
        """Whether readings stand in two tiers."""
        return self._account.moving_from is not None

    async def rows(self, name: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """What the query finds, from `values["from"]` or the oldest readable time on.

        A move may begin or end between two statements. The query finds nothing then, and is run
        again. Raises `Invalid` where a sum leaves a double's range.
        """
        while True:
            async with self._run(name, values) as cursor:
                rows = await cursor.fetchall()
            if rows or await self._unchanged():
                return rows

    async def arrays(self, name: str, values: dict[str, Any]) -> list[bytes] | None:
        """The same, of a query whose one row is arrays, as PostgreSQL sends them in binary.

        None where they would be empty, and while a move is open.
        """
        while not self.moving:
            async with self._run(name, values) as cursor:
                arrays = _values(cursor)
            if arrays:
                return arrays
            if await self._unchanged():
                break
        return None

    async def _unchanged(self) -> bool:
        before, self._account = self._account, await look(self._conn, self._account)
        return before == self._account

    @asynccontextmanager
    async def _run(
        self, name: str, values: dict[str, Any]
    ) -> AsyncIterator[AsyncCursor[tuple[Any, ...]]]:
        account = self._account
        moment = {
            **values,
            "account": account.id,
            "from": max(values["from"], self.oldest),
            "tier": account.tier,
            "moving_from": account.moving_from,
            "moving": self.moving,
            "readable_from": account.readable_from,
        }
        if self.moving:
            name = _WHILE_MOVING.get(name, name)
        statement = tier_query(name, account.tier, account.moving_from)
        try:
            async with self._conn.cursor(binary=True, row_factory=tuple_row) as cursor:
                await cursor.execute(statement, moment)
                yield cursor
        except errors.NumericValueOutOfRange:
            raise beyond_double() from None


def _values(cursor: AsyncCursor[Any]) -> list[bytes]:
    """What the one row holds that is not null, as it came."""
    result = cursor.pgresult
    if result is None:
        return []
    found = (result.get_value(0, column) for column in range(result.nfields))
    return [value for value in found if value is not None]


def beyond_double() -> Invalid:
    """The readings are finite, but what was asked of them is not."""
    detail = "A sum or percentile of these readings is beyond the range of a double."
    return Invalid(detail, field="agg")


async def look(conn: Connection, account: Account) -> Account:
    """The account with where its readings stand now. Raises `NotFound`."""
    row = await (await conn.execute(query("reading_state"), {"account": account.id})).fetchone()
    if row is None:
        raise NotFound("There is no such account.")
    return msgspec.structs.replace(account, **row)


async def open_source(
    conn: Connection, account: Account, devices: list[str], metrics: list[str] | None, now: datetime
) -> Source:
    """The named devices' series, all or those called `metrics`.

    The account is as it was found a moment ago, with the request or by `look`. Raises `NotFound`
    for a device that is not the account's.
    """
    values = {
        "account": account.id,
        "devices": [device for device in devices if device.isprintable()],
        "metrics": metrics,
    }
    async with conn.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(query("read_series"), values)
        row = await cursor.fetchone()
    known, *columns = row or ()
    missing = set(devices).difference(known or ())
    if missing:
        raise NotFound(f"There is no device {min(missing)[:16]}.")
    found = map(Series, *(column or () for column in columns))
    return Source(conn, account, now, list(found))
