"""Flush batches until they are committed, whatever happens to the database meanwhile."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram
from psycopg import DataError, Error, IntegrityError

from paqett import db, log
from paqett.db import Connection
from paqett.errors import PaqettError
from paqett.readings.directory import Directory
from paqett.readings.write import Incoming, Outcome, write_batch
from paqett.settings import Database

_logger = log.get("ingest")
_messages = Counter("paqett_ingest_messages_total", "Messages committed or refused.")
_points = Counter("paqett_ingest_points_total", "Points, one metric value each.", ["outcome"])
_rejected = Counter("paqett_ingest_rejected_points_total", "Points refused, by code.", ["code"])
_seconds = Histogram("paqett_ingest_flush_seconds", "From BEGIN to commit.")
_rows = Histogram(
    "paqett_ingest_flush_messages", "Messages in a flush.", buckets=[1, 10, 100, 1000, 5000, 20000]
)
_retries = Counter("paqett_ingest_flush_retries_total", "Flushes tried again.")
_up = Gauge("paqett_ingest_database_up", "1 while the last flush reached the database.")


class Writer:
    """One connection to the database and the directory that belongs to it."""

    def __init__(self, settings: Database, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._conn: Connection | None = None

    async def flush(self, batch: Sequence[Incoming]) -> None:
        """Return once every reading of `batch` is committed or counted as refused.

        Tries again for as long as the database is away. A batch the database will not take is
        halved until the message at fault stands alone; that one is logged and left out.
        """
        delay = 0.05
        while True:
            try:
                await self._attempt(batch)
            except (DataError, IntegrityError) as error:
                await self._bisect(batch, error)
                return
            except (Error, OSError, TimeoutError) as error:
                _logger.warning("flush failed", error=str(error).strip(), retry_in_s=delay)
            else:
                return
            await self._after_failure(batch)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _attempt(self, batch: Sequence[Incoming]) -> None:
        started = time.perf_counter()
        if self._conn is None or self._conn.closed:
            self._conn = await db.connect(self._settings, "ingest", autocommit=True)
        async with self._conn.transaction():
            outcome = await write_batch(self._conn, self._directory, batch, datetime.now(UTC))
        _note(outcome, len(batch), time.perf_counter() - started)

    async def _bisect(self, batch: Sequence[Incoming], error: Error) -> None:
        await self._after_failure(batch)
        if len(batch) == 1:
            _logger.error(
                "a message cannot be stored", device=batch[0].device_id, error=type(error).__name__
            )
            _rejected.labels("bad_value").inc()
            return
        middle = len(batch) // 2
        await self.flush(batch[:middle])
        await self.flush(batch[middle:])

    async def _after_failure(self, batch: Sequence[Incoming]) -> None:
        """What was learnt in the transaction may be untrue now."""
        _retries.inc()
        _up.set(0)
        self._directory.forget({message.device_id for message in batch})
        if self._conn is not None and self._conn.broken:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(Error, PaqettError):
                await conn.close()


def _note(outcome: Outcome, messages: int, seconds: float) -> None:
    _up.set(1)
    _messages.inc(messages)
    _points.labels("stored").inc(outcome.stored)
    _points.labels("duplicate").inc(outcome.duplicates)
    for code, points in outcome.rejected.items():
        _rejected.labels(code).inc(points)
    if outcome.unknown:
        _rejected.labels("unknown_device").inc(outcome.unknown)
    _seconds.observe(seconds)
    _rows.observe(messages)
    _logger.debug(
        "flushed", messages=messages, stored=outcome.stored, duplicates=outcome.duplicates,
        rejected=dict(outcome.rejected), ms=round(seconds * 1000, 1),
    )  # fmt: skip
