"""For senders who wait: what arrives together is stored together, and each learns its own fate."""

import asyncio
import time
from collections import deque

from paqett.errors import Unavailable
from paqett.flush.writer import DATABASE_TROUBLE, Writer
from paqett.readings.incoming import Incoming, Receipts, Report

_MOST_MESSAGES = 500
_MOST_BYTES = 4 * 2**20
_MOST_WAITING_BYTES = 64 * 2**20


class Door:
    """One writer for any number of requests: while it flushes, the next batch gathers."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._receipts = Receipts()
        self._waiting: deque[tuple[Incoming, asyncio.Future[None]]] = deque()
        self._bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def store(self, device_id: str, payload: bytes, form: str) -> Report:
        """Return once the message's readings are committed or refused on record.

        `form` is json, ndjson or csv. Raises `Unavailable` where the database could not be
        reached; then the same message may be sent again, and what was stored counts as duplicate.
        """
        if self._bytes > _MOST_WAITING_BYTES:
            raise Unavailable("Too much waits for the database; try again.")
        received_us = self._receipts.stamp(device_id, payload, time.time_ns() // 1000, form)
        report = Report()
        incoming = Incoming(device_id, "telemetry", payload, received_us, form, report)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((incoming, done))
        self._bytes += len(payload)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_all())
        await done
        return report

    async def close(self) -> None:
        """Finish what is under way."""
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._writer.close()

    async def _flush_all(self) -> None:
        while self._waiting:
            batch = self._cut()
            if batch:
                await self._flush(batch)

    def _cut(self) -> list[tuple[Incoming, asyncio.Future[None]]]:
        batch: list[tuple[Incoming, asyncio.Future[None]]] = []
        size = 0
        while self._waiting and len(batch) < _MOST_MESSAGES and size < _MOST_BYTES:
            incoming, done = self._waiting.popleft()
            self._bytes -= len(incoming.payload)
            if not done.done():  # else its request was given up
                batch.append((incoming, done))
                size += len(incoming.payload)
        return batch

    async def _flush(self, batch: list[tuple[Incoming, asyncio.Future[None]]]) -> None:
        error: Exception | None = None
        try:
            await self._writer.flush([incoming for incoming, _ in batch])
        except DATABASE_TROUBLE:
            error = Unavailable("The database cannot be reached or took too long; try again.")
        except Exception as fault:
            error = fault
        for _, done in batch:
            if done.done():  # its request was cancelled
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
