"""From the batcher into the database, or onto disk where the database is away or too slow.

A message is acknowledged once it is committed, refused on record, or in the spool with fsync.
Directly while the spool is empty; else into the spool, which is replayed in order, so that new
data stays behind old. Where the spool takes nothing either, messages wait unacknowledged.
"""

import asyncio
import time

from paqett import log, ops
from paqett.db import Connection
from paqett.flush.writer import DATABASE_TROUBLE, Writer
from paqett.ingest import metrics
from paqett.ingest.batcher import Batch, Batcher, parse
from paqett.ingest.errors_topic import ErrorsTopic
from paqett.ingest.spool import Place, Spool, SpoolFull
from paqett.ingest.spool_segment import Record
from paqett.mqtt.consumer import Consumer
from paqett.readings.incoming import Outcome
from paqett.settings import Ingest
from paqett.sqlfiles import query

_logger = log.get("ingest")
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_LOOK_S = 10.0
_REPLAY_BYTES = 4 * 2**20


class Pipeline:
    """One batcher, one writer, one spool."""

    def __init__(
        self, settings: Ingest, batcher: Batcher, writer: Writer, spool: Spool, consumer: Consumer
    ) -> None:
        self._patience_s = settings.patience_ms / 1000
        self._batch_rows = settings.batch_rows
        self._batcher = batcher
        self._writer = writer
        self._spool = spool
        self._consumer = consumer
        self._errors = ErrorsTopic(consumer)
        self._appending = asyncio.Lock()
        self._replaying: asyncio.Task[None] | None = None
        self._full = self._handing_over = False
        self._share = 1  # of a batch that a replay takes, as its divisor
        self._placed = spool.empty  # what an earlier life left, the database knows how far

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand; what is in the spool is safe there."""
        return not len(self._batcher) and not self._consumer.unacknowledged

    async def run(self) -> None:
        """Store until cancelled."""
        self.replay()
        while True:
            batch = await self._batcher.take()
            if self._replaying is None:
                await self._store(batch)
            else:
                await self._keep(batch)

    async def close(self) -> None:
        """Stop the replay; what is left stays in the spool."""
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.gather(self._replaying, return_exceptions=True)

    def replay(self) -> None:
        """Begin to empty the spool, if anything is in it. Raises what ended an earlier replay."""
        self._check_replay()
        if self._replaying is None and not self._handing_over and not self._spool.empty:
            self._begin(None, None)

    def _check_replay(self) -> None:
        """A replay ends by its fault alone: that must end the process, and be seen."""
        if self._replaying is not None and self._replaying.done():
            self._replaying.result()

    async def observe(self) -> None:
        """Keep the gauges true and tell devices what is due, until cancelled."""
        while True:
            metrics.unacknowledged.set(self._consumer.unacknowledged)
            metrics.connected.set(self._consumer.connected)
            metrics.note_dropped(self._consumer.broker_dropped)
            metrics.spool_bytes.set(self._spool.bytes)
            metrics.spool_corrupt.set(self._spool.corrupt_records)
            metrics.spooling.set(self._replaying is not None)
            self._note_health()
            self._check_replay()
            self._consumer.keep_alive()
            self._errors.send_due()
            await asyncio.sleep(1)

    def _note_health(self) -> None:
        connected, full = self._consumer.connected, self._full
        ops.health.note(
            "broker", "ok" if connected else "failed", "subscribed" if connected else "away"
        )
        waits = f"{self._spool.bytes:,} bytes wait" if self._replaying is not None else "empty"
        ops.health.note(
            "spool",
            "failed" if full else "ok" if self._replaying is None else "warning",
            "takes nothing more: messages wait in the broker" if full else waits,
        )

    async def _store(self, batch: Batch) -> None:
        """Into the database; onto disk where that fails or takes longer than the patience."""
        wait_s = _SHORTEST_WAIT_S
        while True:
            flushing = asyncio.create_task(self._writer.flush(batch.incoming))
            try:
                if await self._stored_or_spooled(flushing, batch):
                    return
            except asyncio.CancelledError:
                flushing.cancel()
                await asyncio.gather(flushing, return_exceptions=True)
                raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _stored_or_spooled(self, flushing: asyncio.Task[Outcome], batch: Batch) -> bool:
        await asyncio.wait({flushing}, timeout=self._patience_s)
        if await self._settled(flushing, batch):
            return True
        self._handing_over = True
        try:
            end = await self._append(batch)
        except SpoolFull as error:
            self._note_full(error)
            await asyncio.wait({flushing})
            return await self._settled(flushing, batch)
        finally:
            self._handing_over = False
        self._acknowledge(batch)
        self._begin(flushing, end)
        return True

    async def _settled(self, flushing: asyncio.Task[Outcome], batch: Batch) -> bool:
        """Whether the flush is done and well; raises what is not the database's trouble."""
        if not flushing.done():
            return False
        try:
            outcome = await flushing
        except DATABASE_TROUBLE as error:
            _logger.warning("flush failed", error=str(error).strip() or type(error).__name__)
            return False
        self._acknowledge(batch)
        self._errors.note(outcome.refusals)
        return True

    async def _keep(self, batch: Batch) -> None:
        """Onto disk behind what is there; where there is no room, wait for some."""
        while True:
            try:
                await self._append(batch)
            except SpoolFull as error:
                self._note_full(error)
                await asyncio.sleep(0.2)
                if self._replaying is None:
                    await self._store(batch)
                    return
            else:
                self._acknowledge(batch)
                self.replay()
                return

    async def _append(self, batch: Batch) -> Place:
        records = [
            Record(message.topic, message.payload, incoming.received_us)
            for message, incoming in zip(batch.messages, batch.incoming, strict=True)
        ]
        async with self._appending:
            _, end = await self._spool.append(records)
        metrics.spooled.inc(len(records))
        return end

    def _note_full(self, error: SpoolFull) -> None:
        metrics.spool_full.set(1)
        if not self._full:
            _logger.error("spool full: messages wait in the broker", error=str(error))
        self._full = True

    def _acknowledge(self, batch: Batch) -> None:
        self._consumer.acknowledge(batch.messages)
        if self._full:
            self._full = False
            metrics.spool_full.set(0)
            _logger.info("messages no longer wait in the broker")
        metrics.acknowledge_seconds.observe(time.monotonic() - batch.since)

    def _begin(self, flushing: asyncio.Task[Outcome] | None, end: Place | None) -> None:
        _logger.warning("spooling: the database is away or slow")
        self._replaying = asyncio.create_task(self._replay(flushing, end), name="replay")

    async def _replay(self, flushing: asyncio.Task[Outcome] | None, end: Place | None) -> None:
        """Store what is in the spool until nothing is; `flushing` may have stored up to `end`."""
        if flushing is not None and end is not None:
            try:
                outcome = await flushing
                self._spool.advance(end)
                self._errors.note(outcome.refusals)
            except DATABASE_TROUBLE as error:
                _logger.warning("flush given up", error=str(error).strip() or type(error).__name__)
        wait_s = _SHORTEST_WAIT_S
        while True:
            async with self._appending:
                if self._spool.empty:
                    self._replaying = None
                    _logger.info("spool empty: storing directly")
                    return
            try:
                await self._replay_some()
                wait_s, self._share = _SHORTEST_WAIT_S, 1
            except DATABASE_TROUBLE as error:
                if isinstance(error, TimeoutError):  # the same again would take as long
                    self._share = min(2 * self._share, self._batch_rows)
                _logger.warning(
                    "replay waits", error=str(error).strip() or type(error).__name__,
                    retry_in_s=wait_s, bytes=self._spool.bytes,
                )  # fmt: skip
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _replay_some(self) -> None:
        if not self._placed:
            await self._find_place()
            return
        records, place = self._spool.read(
            max(1, self._batch_rows // self._share), _REPLAY_BYTES // self._share
        )
        if records:

            async def note_place(conn: Connection) -> None:
                values = {"segment": place.segment, "position": place.position}
                await conn.execute(
                    query("unscoped_note_spool_place"), {"spool": self._spool.id, **values}
                )

            incoming = [parse(*record) for record in records]
            outcome = await self._writer.flush(incoming, note_place)
            self._errors.note(outcome.refusals)
        self._spool.advance(place)

    async def _find_place(self) -> None:
        async with asyncio.timeout(_LOOK_S):
            conn = await self._writer.connection()
            found = await conn.execute(query("unscoped_spool_place"), {"spool": self._spool.id})
            row = await found.fetchone()
        if row is not None:
            self._spool.resume(Place(row["segment"], row["position"]))
        self._placed = True
