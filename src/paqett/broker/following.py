"""The database beside a broker: who may connect, at once; who did, into the devices' record."""

import asyncio
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from prometheus_client import Gauge
from psycopg import Error

from paqett import db, log, ops
from paqett.broker.record import Recorder
from paqett.db import Connection
from paqett.settings import Database
from paqett.sqlfiles import query

_logger = log.get("broker")
_devices = Gauge("paqett_broker_devices", "Devices that may connect.")
_recording = Gauge(
    "paqett_broker_database_up", "1 while the database gives passwords and takes connections."
)
_RESYNC_S = 60.0
_SEEN_EVERY_S = 10.0  # a minute without is shown as an unknown connection
_SYNC_APART_S = 0.1
_QUERY_S = 30.0


class Side(Protocol):
    """One kind of broker."""

    async def admit(self, verifiers: dict[str, str]) -> None:
        """These devices may connect, by these verifiers, and nobody else."""

    async def settle(self, conn: Connection) -> None:
        """Called a few times a second: what has to wait for the broker."""

    @property
    def watched(self) -> bool:
        """Whether what happens to connections is heard of."""


async def follow(database: Database, side: Side, recorder: Recorder) -> NoReturn:
    """Admit devices within a second of a change, and write what `recorder` was told."""
    while True:
        try:
            async with await db.connect(database, "broker", autocommit=True) as conn:
                await conn.execute("LISTEN paqett_credentials")
                await _follow(conn, side, recorder)
        except (Error, OSError) as error:
            _logger.warning("database away; the broker goes on", error=str(error).strip())
            _recording.set(0)
            ops.health.note("database", "warning", "away: the broker goes on as it was")
        await asyncio.sleep(1)


async def _follow(conn: Connection, side: Side, recorder: Recorder) -> None:
    loop = asyncio.get_running_loop()
    next_sync = earliest = next_seen = 0.0
    while True:
        if loop.time() >= next_sync:
            await asyncio.sleep(max(0.0, earliest - loop.time()))
            async with asyncio.timeout(_QUERY_S):
                await sync(conn, side)
            earliest = loop.time() + _SYNC_APART_S
            next_sync = loop.time() + _RESYNC_S
        await side.settle(conn)
        async for _ in conn.notifies(timeout=0.2, stop_after=1):
            next_sync = 0.0
        async with asyncio.timeout(_QUERY_S):
            await recorder.record(conn)
        if side.watched and loop.time() >= next_seen:
            next_seen = loop.time() + _SEEN_EVERY_S
            await conn.execute(query("unscoped_note_broker_seen"), {"now": datetime.now(UTC)})
            _recording.set(1)
            ops.health.note("database", "ok", "answers")


async def sync(conn: Connection, side: Side) -> None:
    """Tell the broker's side who may connect now."""
    rows = await (await conn.execute(query("unscoped_device_verifiers"))).fetchall()
    _devices.set(len(rows))
    await side.admit({row["id"]: row["verifier"] for row in rows})
