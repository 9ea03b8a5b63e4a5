"""Flushes of a test's own, the way ingest makes them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from kept import Kept
from paqett import db
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import write_batch
from paqett.settings import Settings

NOW = datetime.now(UTC)
NOW_US = int(NOW.timestamp() * 1e6)


class Door:
    """Flushes batches the way ingest does, each in a transaction of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._kept = Kept()
        self.directory = Directory(load_plans(settings.plans_file))

    def send(self, *messages: Incoming) -> Outcome:
        async def run() -> Outcome:
            conn = await self._kept.once("connection", self._connect)
            async with conn.transaction():
                return await write_batch(conn, self.directory, messages)

        return self._kept.run(run())

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[db.Connection]:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            yield conn


def message(device: str, values: Any, topic: str = "telemetry", at: int = NOW_US) -> Incoming:
    payload = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Incoming(device, topic, payload, at)
