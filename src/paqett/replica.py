"""Where telemetry is read: from a streaming replica where one is set and up to date, else as ever.

Every read sees whatever was committed before it came: it asks the primary how far its log has got,
and takes the replica only once that has replayed as much, on the connection it then reads from.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Self

import msgspec
from prometheus_client import Counter, Gauge
from psycopg import Error, OperationalError
from psycopg.errors import QueryCanceled

from paqett import db, log, pools
from paqett.db import Connection
from paqett.errors import Unavailable
from paqett.settings import Database
from paqett.shared import Shared
from paqett.sqlfiles import query

_logger = log.get("replica")
_reads = Counter(
    "paqett_database_replica_reads_total",
    "Where telemetry was read while a replica is set.",
    ["source"],
)
for _source in ("primary", "replica"):  # a rate of what is not there yet is no number
    _reads.labels(_source)
_lag = Gauge("paqett_database_replica_lag_bytes", "What the replica had not replayed yet, last.")
_AWAY_S = 5.0
_BEHIND_S = 1.0
_LOOK_AGAIN_S = 0.005


class Place(msgspec.Struct, frozen=True):
    """How far a server's log has got, in bytes, and whose log that is: positions of two servers are
    comparable only where all the rest is the same."""

    position: int
    system: int
    timeline: int
    database: int

    def lag_of(self, replica: "Place") -> int:
        """What the replica has not replayed yet, in bytes. Raises `NoReplica`."""
        if msgspec.structs.replace(replica, position=self.position) != self:
            raise NoReplica("replica_url leads to no replica of this database")
        return self.position - replica.position


class NoReplica(Exception):
    """What answers is not this database's replica: another one's, or one that was promoted."""


class Readers:
    """The pools that telemetry is read from; open with `async with`."""

    def __init__(self, settings: Database, process: str) -> None:
        self._primary = db.pool(settings, process, reading=True)
        pools.watch(self._primary, "reading")
        self._replica = None
        self._wait_s = settings.replica_wait_s
        self._not_before = 0.0
        self._told = ""
        self._position = Shared(self.position)
        if settings.replica_url:
            there = msgspec.structs.replace(settings, url=settings.replica_url)
            self._replica = db.pool(there, process, reading=True)
            pools.watch(self._replica, "replica")

    async def __aenter__(self) -> Self:
        await self._primary.open()
        if self._replica is not None:
            await self._replica.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._primary.close()
        if self._replica is not None:
            await self._replica.close()

    def statements(self) -> AbstractAsyncContextManager[Connection]:
        """A connection on which every statement is a transaction of its own, and writes nothing.

        Raises `Unavailable` while no database can be reached, `QueryCanceled` at the timeout.
        """
        return db.statements(self._primary) if self._replica is None else self._of_either()

    @asynccontextmanager
    async def _of_either(self) -> AsyncIterator[Connection]:
        async with AsyncExitStack() as stack:
            conn = await self._up_to_date(stack)
            if conn is None:
                yield await stack.enter_async_context(db.statements(self._primary))
                return
            try:
                yield conn
            except QueryCanceled:
                raise
            except OperationalError as error:
                # it went away, or cancelled what stood in the way of its replay: whoever tries
                # again is not to meet it again
                self._rest(str(error).strip(), _AWAY_S)
                raise

    async def _up_to_date(self, stack: AsyncExitStack) -> Connection | None:
        """The replica's, where it is there and has replayed what was committed by now."""
        if self._replica is None:
            return None
        if time.monotonic() < self._not_before:
            _reads.labels("primary").inc()
            return None
        try:
            async with asyncio.timeout(self._wait_s):
                place = await self._position.now()
                conn = await stack.enter_async_context(db.statements(self._replica))
                while (lag := place.lag_of(await _replayed(conn))) > 0:
                    _lag.set(lag)
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            self._rest("behind, or does not answer", _BEHIND_S)
        except NoReplica as error:
            # a connection outlives the renaming of its database, as a restore does
            await conn.close()
            self._rest(str(error), _AWAY_S)
        except (Unavailable, Error) as error:
            self._rest(str(error).strip(), _AWAY_S)
        else:
            self._say("")
            _lag.set(0)
            _reads.labels("replica").inc()
            return conn
        await stack.aclose()
        _reads.labels("primary").inc()
        return None

    def _rest(self, why: str, seconds: float) -> None:
        """Leave it alone for a while: not every read has to find out."""
        self._not_before = time.monotonic() + seconds
        self._say(why)

    def _say(self, why: str) -> None:
        if bool(why) != bool(self._told):
            if why:
                _logger.warning("telemetry is read from the primary", replica=why)
            else:
                _logger.info("telemetry is read from the replica again")
        self._told = why

    async def position(self) -> Place:
        """How far the primary's log has got."""
        async with db.statements(self._primary) as conn:
            row = await (await conn.execute(query("unscoped_log_position"))).fetchone()
        return msgspec.convert(row, Place)


async def _replayed(conn: Connection) -> Place:
    """How far the replica has got. Raises `NoReplica` for a server that is none."""
    row = await (await conn.execute(query("unscoped_log_replayed"))).fetchone()
    if row is None or row["position"] is None:
        raise NoReplica("replica_url leads to no replica")
    return msgspec.convert(row, Place)
