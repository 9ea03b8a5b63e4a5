"""What a broker says of connections, kept until it is in the database."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import msgspec
from prometheus_client import Counter
from psycopg import Error

from paqett import db, log
from paqett.db import Connection
from paqett.settings import Database
from paqett.sqlfiles import query

Kind = Literal["connected", "disconnected", "taken_over", "refused"]

_logger = log.get("broker")
_events = Counter("paqett_broker_events_total", "Connection events.", ["kind"])
_REFUSALS_APART_S = 60.0
_BATCH = 10_000
_MANY_PENDING = 100_000


class Event(msgspec.Struct, frozen=True):
    """`client` is the device's id, "" where the broker does not tell; `ip` only at connects."""

    kind: Kind
    client: str
    reason: str | None = None
    ip: str | None = None


# None: the broker started or ended, and nobody is connected.
Pending = list[tuple[datetime, Event | None]]


class Recorder:
    """Events in the order they came; written in batches, a transaction each."""

    def __init__(self) -> None:
        self._pending: Pending = []
        self._compact_at = _MANY_PENDING
        self._refused: dict[str, float] = {}

    def note(self, event: Event | None, at: datetime | None = None) -> None:
        """One event, at `at` or now. Refusals are noted once a minute for an id."""
        if event is not None:
            _events.labels(event.kind).inc()
            if not event.client or self._is_repeated(event):
                return
        self._pending.append((at or datetime.now(UTC), event))
        if len(self._pending) >= self._compact_at:  # the database has been away for long
            _logger.warning("old connection events dropped", pending=len(self._pending))
            self._pending = compacted(self._pending)
            self._compact_at = max(_MANY_PENDING, 2 * len(self._pending))

    def _is_repeated(self, event: Event) -> bool:
        """A stranger may cause any number of refusals."""
        if event.kind != "refused":
            return False
        now = asyncio.get_running_loop().time()
        if len(self._refused) > _BATCH:
            self._refused.clear()
        if now - self._refused.get(event.client, -_REFUSALS_APART_S) < _REFUSALS_APART_S:
            return True
        self._refused[event.client] = now
        return False

    async def record(self, conn: Connection) -> None:
        """Write what came first, if anything did; it stays where the database fails."""
        batch = self._pending[:_BATCH]
        if not batch:
            return
        # taken first: noting may compact what waits while the database works
        del self._pending[: len(batch)]
        try:
            async with conn.transaction():
                await write(conn, batch)
        except BaseException:
            self._pending[:0] = batch
            raise

    async def record_the_rest(self, database: Database) -> None:
        """Write what was said last, if the database is there."""
        with suppress(Error, OSError):
            async with await db.connect(database, "broker", autocommit=True) as conn:
                while self._pending:
                    await self.record(conn)


async def write(conn: Connection, batch: Pending) -> None:
    """Events, uses of secrets and states in the database; whoever listens for states is told."""
    ended, last = states(batch)
    if ended is not None:
        await conn.execute(query("unscoped_all_offline"), {"now": ended})
    events = [(at, event) for at, event in batch if event is not None]
    if events:
        columns = _event_columns(events)
        await conn.execute(query("unscoped_note_events"), columns)
        await conn.execute(query("unscoped_note_secret_uses"), columns)
    if last:
        await conn.execute(query("unscoped_note_connections"), _state_columns(last))
        await conn.execute(query("unscoped_notify_connections"), {"devices": list(last)})


def states(batch: Pending) -> tuple[datetime | None, dict[str, tuple[datetime, Event]]]:
    """When the broker last ended, if it did, and each device's last word since then."""
    ended = None
    last: dict[str, tuple[datetime, Event]] = {}
    for at, event in batch:
        if event is None:
            ended = at
            last.clear()
        elif event.kind in ("connected", "disconnected"):
            last[event.client] = (at, event)
    return ended, last


def compacted(pending: Pending) -> Pending:
    """Only what decides who is online now."""
    ended, last = states(pending)
    return [*([] if ended is None else [(ended, None)]), *last.values()]


def _event_columns(events: list[tuple[datetime, Event]]) -> dict[str, object]:
    return {
        "devices": [event.client for _, event in events],
        "times": [at for at, _ in events],
        "kinds": [event.kind for _, event in events],
        "reasons": [event.reason for _, event in events],
        "ips": [event.ip for _, event in events],
    }


def _state_columns(last: dict[str, tuple[datetime, Event]]) -> dict[str, object]:
    values = list(last.values())
    return {
        "devices": list(last),
        "connections": ["online" if e.kind == "connected" else "offline" for _, e in values],
        "sinces": [at for at, _ in values],
        "reasons": [event.reason for _, event in values],
        "ips": [event.ip for _, event in values],
    }
