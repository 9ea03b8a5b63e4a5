"""Requests and bytes of each API key and UTC day: counted in memory, added to a table every 5 s.

A process that is killed loses what it has counted since it last wrote: 5 seconds' worth, or since
the database went away. One that stops writes first. A write whose commit is confirmed by nobody,
since the connection broke at that moment, is done again, and may then count twice.
"""

import asyncio
from contextlib import suppress
from datetime import date

from psycopg import Error
from psycopg_pool import AsyncConnectionPool

from paqett import db, log, usage
from paqett.db import Connection
from paqett.errors import PaqettError
from paqett.principals import Principal

_EVERY_S = 5.0
_logger = log.get("meter")


class Meter:
    """Adds up; `flush` writes what there is."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._counted: dict[usage.KeyDay, usage.Requests] = {}

    def add(
        self, principal: Principal, day: date, requests: int, bytes_in: int, bytes_out: int
    ) -> None:
        """Count for the key, or for the signed-in person. A device's own requests are left out:
        its messages and bytes stand in the usage of devices."""
        if principal.key_id is None and principal.device_ids is not None:
            return
        self._add((principal.account.id, day, principal.key_id or 0), requests, bytes_in, bytes_out)

    def _add(self, place: usage.KeyDay, requests: int, bytes_in: int, bytes_out: int) -> None:
        old = self._counted.get(place, usage.Requests(0, 0, 0))
        self._counted[place] = usage.Requests(
            old.requests + requests, old.bytes_in + bytes_in, old.bytes_out + bytes_out
        )

    async def flush(self) -> None:
        """Add what was counted to the table; keeps it where that fails, and raises."""
        taken, self._counted = self._counted, {}
        if not taken:
            return
        try:
            async with db.transaction(self._pool) as conn:
                await usage.add_requests(conn, taken)
        except BaseException:
            for place, more in taken.items():
                self._add(place, more.requests, more.bytes_in, more.bytes_out)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Flush every 5 s until `stop`, and then once more."""
        last = False
        while not last:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_S)
            last = stop.is_set()  # asked now: while it is written, more may be counted
            try:
                await self.flush()
            except (PaqettError, Error, OSError) as error:
                _logger.warning("requests not counted yet", error=str(error))
