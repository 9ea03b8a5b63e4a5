"""The ingest process: one active, any number standing by."""

import asyncio
import gc
import os
import time
from contextlib import suppress
from pathlib import Path

from psycopg import Error

from paqett import db, log, migrate, ops
from paqett.app import say_newer, until_stopped
from paqett.db import Connection
from paqett.errors import PaqettError, SchemaBehindError
from paqett.flush.writer import Writer
from paqett.ingest import metrics
from paqett.ingest.batcher import PREFIX, Batcher
from paqett.ingest.pipeline import Pipeline
from paqett.ingest.spool import Spool
from paqett.ingest.spool_folder import SpoolInUse
from paqett.mqtt.consumer import Consumer
from paqett.mqtt.credentials import writer_client_id
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.settings import Settings

_logger = log.get("ingest")
_DROPPED = "$SYS/broker/publish/messages/dropped"
_WITHOUT_DATABASE_AFTER_S = 3.0
_QUERY_S = 5.0


class LostLead(PaqettError):
    """Another ingest process became the active one."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write until `stop`; then finish what is in hand.

    Waits for the database and the broker, and stands by while another process is active: for the
    spool's folder on this machine, for the lock in the database everywhere. Raises `LostLead` when
    another process took over while the database was away, `SchemaOutdatedError` where the schema
    needs a newer program; an older schema is waited for like a database that is away.
    """
    spool = await _open_spool(settings, stop)
    if spool is None:
        return
    directory = Directory(load_plans(settings.plans_file))
    writer = Writer(settings.database, "ingest", directory, settings.ingest.flush_timeout_s)
    batcher = Batcher(settings.ingest.batch_rows, settings.ingest.batch_age_ms / 1000)
    consumer = _consumer(settings, spool, batcher)
    pipeline = Pipeline(settings.ingest, batcher, writer, spool, consumer)
    lead = _Lead(settings, _marker(settings), pipeline)
    try:
        if await lead.wait(stop):
            await _run_active(settings, stop, pipeline, consumer, lead)
    finally:
        await pipeline.close()
        await writer.close()
        await lead.close()
        spool.close()


def _consumer(settings: Settings, spool: Spool, batcher: Batcher) -> Consumer:
    """One client id for the one active process; where they share, each spool has its own."""
    client_id, group = writer_client_id(settings.mqtt.password), settings.mqtt.share_group
    if group:
        # no `errors`: without No Local, which MQTT 5 forbids here, our own would come back
        topics = [f"$share/{group}/{PREFIX}+/{name}" for name in ("telemetry/#", "attributes")]
        return Consumer(settings.mqtt, f"{client_id}-{spool.id[:8]}", topics, batcher.put)
    return Consumer(settings.mqtt, client_id, [f"{PREFIX}+/#", _DROPPED], batcher.put)


async def _run_active(
    settings: Settings, stop: asyncio.Event, pipeline: Pipeline, consumer: Consumer, lead: "_Lead"
) -> None:
    consuming = asyncio.create_task(consumer.run(), name="consumer")
    storing = asyncio.create_task(pipeline.run(), name="pipeline")
    tasks = [
        consuming,
        storing,
        asyncio.create_task(lead.keep(), name="lead"),
        asyncio.create_task(pipeline.observe(), name="gauges"),
    ]
    metrics.active.set(1)
    # Hardly anything here is part of a cycle, and the directory is large: look rarely.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        await until_stopped(tasks, stop)
        if stop.is_set() and not consuming.done() and not storing.done():
            consumer.pause()
            await _drained(pipeline, settings.ingest.drain_timeout_s)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]
    lead.leave()


async def _drained(pipeline: Pipeline, timeout_s: float) -> None:
    """Commit or spool what has arrived; the broker keeps what has not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not pipeline.idle:  # noqa: ASYNC110 - once a life
                await asyncio.sleep(0.01)
    _logger.info("stopping", idle=pipeline.idle)


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "ingest" / "spool"


def _marker(settings: Settings) -> Path:
    return settings.data_dir / "ingest" / "active"


async def _open_spool(settings: Settings, stop: asyncio.Event) -> Spool | None:
    """The spool, once no other process on this machine has it; None when asked to stop first."""
    told = False
    while not stop.is_set():
        try:
            return Spool(
                _folder(settings),
                max_bytes=settings.ingest.spool_max_bytes,
                min_free_bytes=settings.ingest.spool_min_free_bytes,
            )
        except SpoolInUse:
            ops.health.note("lead", "ok", "standing by: another ingest process has the spool")
            if not told:
                _logger.info("standing by: another ingest process has the spool")
                told = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
    return None


class _Lead:
    """The lock that makes one process the active one.

    `marker` says that the last life of this process was active: while the database is away it goes
    on reading the broker into the spool, instead of leaving messages in the broker's memory.
    """

    def __init__(self, settings: Settings, marker: Path, pipeline: Pipeline) -> None:
        self._settings = settings
        self._marker = marker
        self._pipeline = pipeline
        self._shared = bool(settings.mqtt.share_group)
        self._conn: Connection | None = None
        self._away = ""

    async def wait(self, stop: asyncio.Event) -> bool:
        """Become active; false when asked to stop first. Stores what is in the spool meanwhile."""
        began, told = time.monotonic(), ""
        while not stop.is_set():
            held = await self._try()
            if held:
                _logger.info("active")
                ops.health.note("lead", "ok", "active")
                return True
            away = held is None
            why = f"waiting for {self._away}" if away else "another ingest process is active"
            if not away:  # somebody else reads: without the database that must stay so
                self.leave()
                began = time.monotonic()
            waited_s = time.monotonic() - began
            if away and waited_s > _WITHOUT_DATABASE_AFTER_S and self._marker.exists():
                _logger.warning("active without the database: everything goes to the spool")
                ops.health.note("lead", "warning", f"active, {why}: everything goes to the spool")
                return True
            ops.health.note("lead", "failed" if away else "ok", f"standing by: {why}")
            if why != told:
                _logger.warning(why) if away else _logger.info("standing by: " + why)
                told = why
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5 if away else 1.0)
        return False

    async def _try(self) -> bool | None:
        """Whether the lock is ours; None while the database is away or its schema an older one."""
        self._away = "the database"
        try:
            conn = await db.connect(self._settings.database, "ingest lead", autocommit=True)
        except (Error, OSError):
            return None
        try:
            async with asyncio.timeout(_QUERY_S):
                # first, since the process that has it may be the version before this one
                held = await _try_lock(conn, shared=self._shared)
                newer = await migrate.require_current(conn)
            self._pipeline.replay()
            if held:
                self._conn = conn
                self._mark()
                say_newer(newer)
                return True
        except SchemaBehindError as error:
            self._away = str(error)
            await conn.close()
            return None if held else False
        except (Error, OSError):
            await conn.close()
            return None
        except BaseException:
            await conn.close()
            raise
        await conn.close()
        return False

    def _mark(self) -> None:
        with suppress(OSError):
            self._marker.touch(0o600)

    def leave(self) -> None:
        """An orderly end: the next life asks the database first."""
        with suppress(OSError):
            os.unlink(self._marker)  # noqa: PTH108 - beside suppress, one call

    async def close(self) -> None:
        """Let go of the lock."""
        if self._conn is not None:
            with suppress(Error, OSError):
                await self._conn.close()

    async def keep(self) -> None:
        """Hold the lock; take it again after the database was away. Raises `LostLead`."""
        while True:
            try:
                if self._conn is not None:
                    async with asyncio.timeout(_QUERY_S):
                        ops.note_schema(await migrate.require_current(self._conn))
                    ops.health.note("lead", "ok", "active")
                else:
                    held = await self._try()
                    if held is False:
                        self.leave()
                        raise LostLead("another ingest process is active")
            except (Error, OSError):
                _logger.warning("lost the database; going on with the spool")
                ops.health.note("lead", "warning", "active, without the database: see the spool")
                await self.close()
                self._conn = None
            await asyncio.sleep(2.0 if self._conn is not None else 0.5)


async def _try_lock(conn: Connection, *, shared: bool) -> bool:
    """With shared subscriptions everybody is active, and nobody is alone."""
    if shared:
        return True
    row = await (await conn.execute("SELECT pg_try_advisory_lock(7061, 2) AS held")).fetchone()
    return bool(row and row["held"])
