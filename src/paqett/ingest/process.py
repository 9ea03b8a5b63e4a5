"""The ingest process: one active, any number standing by."""

import asyncio
from contextlib import suppress

from prometheus_client import Gauge
from psycopg import Error

from paqett import db, log
from paqett.app import wait_for_database
from paqett.db import Connection
from paqett.errors import PaqettError
from paqett.ingest.batcher import PREFIX, Batcher
from paqett.ingest.writer import Writer
from paqett.mqtt.consumer import Consumer
from paqett.mqtt.credentials import writer_client_id
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.settings import Settings

_logger = log.get("ingest")
_in_flight = Gauge("paqett_ingest_unacknowledged", "Messages received and not acknowledged.")
_connected = Gauge("paqett_ingest_broker_connected", "1 while subscribed.")


class LostLead(PaqettError):
    """Another ingest process became the active one."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write until `stop`; then commit what is in hand.

    Waits for the database and the broker, and stands by while another process is active. Raises
    `LostLead` when another process took over while the database was away.
    """
    await wait_for_database(settings, stop)
    lead = await _become_active(settings, stop)
    if lead is None:
        return
    directory = Directory(load_plans(settings.plans_file))
    writer = Writer(settings.database, directory)
    batcher = Batcher(settings.ingest.batch_rows, settings.ingest.batch_age_ms / 1000)
    consumer = Consumer(
        settings.mqtt, writer_client_id(settings.mqtt.password), [f"{PREFIX}+/#"], batcher.put
    )
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in (
            ("consumer", consumer.run()),
            ("flush", _flush_forever(batcher, writer, consumer)),
            ("lead", _keep_lead(settings, lead)),
            ("gauges", _gauges(consumer)),
        )
    ]
    await _until_stopped(tasks, stop)
    await _drain(tasks[0], tasks[1], batcher, consumer, settings.ingest.drain_timeout_s)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await writer.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _until_stopped(tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _drain(
    consuming: asyncio.Task[None], flushing: asyncio.Task[None], batcher: Batcher,
    consumer: Consumer, timeout_s: float,
) -> None:  # fmt: skip
    """Commit and acknowledge what has arrived; the broker keeps what has not."""
    if flushing.done() or consuming.done():
        return
    consumer.pause()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while len(batcher) or consumer.unacknowledged:  # noqa: ASYNC110 - once a life
                await asyncio.sleep(0.01)
    _logger.info("stopping", left=len(batcher), unacknowledged=consumer.unacknowledged)


async def _flush_forever(batcher: Batcher, writer: Writer, consumer: Consumer) -> None:
    while True:
        messages, incoming = await batcher.take()
        await writer.flush(incoming)
        consumer.acknowledge(messages)


async def _gauges(consumer: Consumer) -> None:
    while True:
        _in_flight.set(consumer.unacknowledged)
        _connected.set(consumer.connected)
        await asyncio.sleep(1)


async def _become_active(settings: Settings, stop: asyncio.Event) -> Connection | None:
    """The connection that holds the lock, or None when asked to stop first."""
    told = False
    while not stop.is_set():
        with suppress(Error, OSError):
            conn = await db.connect(settings.database, "ingest lead", autocommit=True)
            if await _try_lock(conn):
                _logger.info("active")
                return conn
            await conn.close()
            if not told:
                _logger.info("standing by: another ingest process is active")
                told = True
        await asyncio.sleep(1)
    return None


async def _try_lock(conn: Connection) -> bool:
    row = await (await conn.execute("SELECT pg_try_advisory_lock(7061, 2) AS held")).fetchone()
    return bool(row and row["held"])


async def _keep_lead(settings: Settings, conn: Connection) -> None:
    while True:
        await asyncio.sleep(2)
        try:
            await conn.execute("SELECT 1")
        except (Error, OSError):
            _logger.warning("lost the database; going on with what is in hand")
            conn = await _regain_lead(settings)


async def _regain_lead(settings: Settings) -> Connection:
    while True:
        with suppress(Error, OSError):
            conn = await db.connect(settings.database, "ingest lead", autocommit=True)
            if not await _try_lock(conn):
                await conn.close()
                raise LostLead("another ingest process is active")
            return conn
        await asyncio.sleep(0.5)
