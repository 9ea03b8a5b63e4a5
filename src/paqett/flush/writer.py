"""Flush a batch through one connection; a message the database will not take stands alone.

Both doors write this way, each process through a writer of its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from psycopg import DataError, Error, IntegrityError

from paqett import db, log, migrate, tracing
from paqett.db import Connection
from paqett.errors import PaqettError, SchemaOutdatedError
from paqett.flush import metrics
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import refuse_message, write_batch
from paqett.settings import Database

_logger = log.get("ingest")
_EXPIRE_EVERY_S = 300.0
_UNUSED_S = 3600.0

DATABASE_TROUBLE = (Error, OSError, TimeoutError, SchemaOutdatedError)
"""What a flush raises while the database is away, too slow, full, restarting or to be migrated."""

Beside = Callable[[Connection], Awaitable[None]]
"""Something to be done in the transaction of a batch."""


class Writer:
    """One connection to the database and the directory that belongs to it."""

    def __init__(
        self, settings: Database, process: str, directory: Directory, timeout_s: float
    ) -> None:
        self._settings, self._process = settings, process
        self._directory = directory
        self._timeout_s = timeout_s
        self._conn: Connection | None = None
        self._expired_at = time.monotonic()

    async def flush(self, batch: Sequence[Incoming], beside: Beside | None = None) -> Outcome:
        """Return once every reading of `batch` is committed or recorded as refused.

        What the database will not take is halved until the message at fault stands alone; that one
        goes into the rejection ledger. `beside` runs in the transaction of the last part. Raises
        one of `DATABASE_TROUBLE`; then it is not known whether the batch was committed.
        """
        try:
            return await self._attempt(batch, beside)
        except (DataError, IntegrityError) as error:
            await self._after_failure(batch)
            if len(batch) == 1:
                try:
                    return await self._refuse(batch[0], error, beside)
                except BaseException:
                    await self._after_failure(batch)
                    raise
        except BaseException:
            metrics.retries.inc()
            metrics.database_up.set(0)
            await self._after_failure(batch)
            raise
        middle = len(batch) // 2
        outcome = await self.flush(batch[:middle])
        outcome.add(await self.flush(batch[middle:], beside))
        return outcome

    async def _attempt(self, batch: Sequence[Incoming], beside: Beside | None) -> Outcome:
        started = time.perf_counter()
        with tracing.span("flush", messages=len(batch)) as span:
            outcome = await self._write(batch, beside)
            span.set_attribute("paqett.stored", outcome.stored)
        metrics.note(outcome, len(batch), time.perf_counter() - started)
        self._expire()
        return outcome

    async def _write(self, batch: Sequence[Incoming], beside: Beside | None) -> Outcome:
        async with asyncio.timeout(self._timeout_s):
            conn = await self.connection()
            async with conn.transaction():
                outcome = await write_batch(conn, self._directory, batch)
                if beside is not None:
                    await beside(conn)
        return outcome

    async def _refuse(self, message: Incoming, error: Error, beside: Beside | None) -> Outcome:
        """The ledger instead of the readings; only the log where even that is refused."""
        _logger.error(
            "a message cannot be stored", device=message.device_id, error=type(error).__name__
        )
        if message.report is not None:
            message.report.clear()
        for only_beside in (False, True):
            try:
                conn = await self.connection()
                async with asyncio.timeout(self._timeout_s), conn.transaction():
                    outcome = Outcome()
                    if not only_beside:
                        outcome = await refuse_message(conn, self._directory, message)
                    if beside is not None:
                        await beside(conn)
            except (DataError, IntegrityError):
                await self._after_failure((message,))
            else:
                metrics.note(outcome, 1, 0.0)
                return outcome
        return Outcome()

    async def connection(self) -> Connection:
        """The connection, made anew where it is gone; in autocommit mode.

        Raises `SchemaOutdatedError` rather than write into a schema it does not know.
        """
        if self._conn is None or self._conn.closed:
            conn = await db.connect(self._settings, self._process, autocommit=True)
            try:
                await migrate.require_current(conn)
            except BaseException:
                await conn.close()
                raise
            self._conn = conn
        return self._conn

    async def _after_failure(self, batch: Sequence[Incoming]) -> None:
        """What was learnt in the transaction may be untrue now."""
        self._directory.forget({message.device_id for message in batch})
        if self._conn is not None and (self._conn.broken or self._conn.pgconn.transaction_status):
            await self.close()

    def _expire(self) -> None:
        now = time.monotonic()
        if now - self._expired_at > _EXPIRE_EVERY_S:
            self._expired_at = now
            self._directory.expire(round((time.time() - _UNUSED_S) * 1e6))

    async def close(self) -> None:
        """Close the connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(Error, PaqettError):
                await conn.close()
