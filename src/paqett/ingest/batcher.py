"""Collect deliveries until there are enough, or the oldest has waited long enough."""

import asyncio
import time
from collections import deque

from paqett.mqtt.consumer import Message
from paqett.readings.write import Incoming

PREFIX = "paqett/v1/"


class Batcher:
    """A queue read in batches of at most `rows` messages or `max_bytes` of payload."""

    def __init__(self, rows: int, age_s: float, max_bytes: int = 1_000_000) -> None:
        self._rows = rows
        self._age_s = age_s
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Take one delivery; its time of receipt is now."""
        self._waiting.append((message, time.time_ns() // 1000))
        self._bytes += len(message.payload)
        self._some.set()
        if len(self._waiting) >= self._rows or self._bytes >= self._max_bytes:
            self._enough.set()

    async def take(self) -> tuple[list[Message], list[Incoming]]:
        """Wait for a batch; the two lists run parallel."""
        await self._some.wait()
        oldest_us = self._waiting[0][1]
        left = self._age_s - (time.time_ns() // 1000 - oldest_us) / 1e6
        if left > 0 and not self._enough.is_set():
            try:
                async with asyncio.timeout(left):
                    await self._enough.wait()
            except TimeoutError:
                pass
        return self._cut()

    def _cut(self) -> tuple[list[Message], list[Incoming]]:
        messages: list[Message] = []
        incoming: list[Incoming] = []
        size, waiting = 0, self._waiting
        while waiting and len(messages) < self._rows and size < self._max_bytes:
            message, received_us = waiting.popleft()
            size += len(message.payload)
            messages.append(message)
            incoming.append(parse(message, received_us))
        self._bytes -= size
        if not waiting:
            self._some.clear()
        if len(waiting) < self._rows and self._bytes < self._max_bytes:
            self._enough.clear()
        return messages, incoming


def parse(message: Message, received_us: int) -> Incoming:
    """Split the topic; what is not below `telemetry` gets the path None."""
    device_id, _, rest = message.topic[len(PREFIX) :].partition("/")
    path: str | None = None
    if rest == "telemetry":
        path = ""
    elif rest.startswith("telemetry/"):
        path = rest[10:] or "/"
    return Incoming(device_id, path, message.payload, received_us)
