"""Flushes of a test's own, the way ingest makes them."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

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
        self.directory = Directory(load_plans(settings.plans_file))

    def send(self, *messages: Incoming) -> Outcome:
        async def run() -> Outcome:
            connecting = db.connect(self.settings.database, "test", autocommit=True)
            async with await connecting as conn, conn.transaction():
                return await write_batch(conn, self.directory, messages)

        return asyncio.run(run())


def message(device: str, values: Any, topic: str = "telemetry", at: int = NOW_US) -> Incoming:
    payload = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Incoming(device, topic, payload, at)
