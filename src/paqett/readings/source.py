"""Where an account's readings stand, and how they are read while they move from tier to tier."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import errors
from psycopg.rows import tuple_row

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Invalid, NotFound
from paqett.sqlfiles import query, tier_query


class State(msgspec.Struct, frozen=True):
    """Where the account's readings stand at one moment."""

    tier: str
    moving_from: str | None
    readable_from: datetime
    retention: timedelta

    def oldest(self, now: datetime) -> datetime:
        """Nothing older is read: greatest(now - retention, readable_from)."""
        return max(now - self.retention, self.readable_from)


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
    """The series of some devices of an account, to be read in one transaction as of `now`."""

    def __init__(
        self, conn: Connection, account: Account, now: datetime, state: State, found: list[Series]
    ) -> None:
        self._conn, self._account, self._now = conn, account, now
        self._state = state
        self.series = {series.id: series for series in found}

    @property
    def oldest(self) -> datetime:
        """Nothing older is read."""
        return self._state.oldest(self._now)

    async def rows(self, name: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """What the query finds, from `values["from"]` or the oldest readable time on.

        A move may begin or end between two statements. What was read while the state changed may
        lack readings, so it is read again. Raises `Invalid` where a sum leaves a double's range.
        """
        while True:
            state = self._state
            moment = {
                **values,
                "account": self._account.id,
                "from": max(values["from"], self.oldest),
                "moving": state.moving_from is not None,
            }
            rows = await self._fetch(name, moment)
            self._state = await look(self._conn, self._account)
            if state == self._state:
                return rows

    async def _fetch(self, name: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        statement = tier_query(name, self._state.tier, self._state.moving_from)
        try:
            async with self._conn.cursor(binary=True, row_factory=tuple_row) as cursor:
                await cursor.execute(statement, values)
                return await cursor.fetchall()
        except errors.NumericValueOutOfRange:
            raise beyond_double() from None


def beyond_double() -> Invalid:
    """The readings are finite, but what was asked of them is not."""
    detail = "A sum or percentile of these readings is beyond the range of a double."
    return Invalid(detail, field="agg")


async def look(conn: Connection, account: Account) -> State:
    """Where the account's readings stand now. Raises `NotFound`."""
    row = await (await conn.execute(query("reading_state"), {"account": account.id})).fetchone()
    if row is None:
        raise NotFound("There is no such account.")
    return msgspec.convert(row, State)


async def open_source(
    conn: Connection, account: Account, devices: list[str], metrics: list[str] | None, now: datetime
) -> Source:
    """The named devices' series, all or those called `metrics`.

    Raises `NotFound` for a device that is not the account's.
    """
    values = {
        "account": account.id,
        "devices": [device for device in devices if device.isprintable()],
        "metrics": metrics,
    }
    async with conn.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(query("read_series"), values)
        rows = await cursor.fetchall()
    missing = set(devices).difference(row[0] for row in rows)
    if missing:
        raise NotFound(f"There is no device {min(missing)[:16]}.")
    found = [
        Series(key, device, metric, kind, unit, mixed)
        for device, key, metric, kind, unit, mixed, *_ in rows
        if key is not None
    ]
    state = State(*rows[0][6:]) if rows else await look(conn, account)
    return Source(conn, account, now, state, found)
