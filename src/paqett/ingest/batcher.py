"""Collect deliveries until there are enough, or the oldest has waited long enough."""

import asyncio
import time
from collections import deque

import msgspec

from paqett.mqtt.consumer import Message
from paqett.readings.incoming import TELEMETRY, Incoming, Receipts

PREFIX = "paqett/v1/"


class Batch(msgspec.Struct):
    """Deliveries, and in parallel what they say; `since` is the oldest's `time.monotonic()`."""

    messages: list[Message]
    incoming: list[Incoming]
    since: float


class Batcher:
    """A queue read in batches of at most `rows` messages or `max_bytes` of payload."""

    def __init__(self, rows: int, age_s: float, max_bytes: int = 4 * 2**20) -> None:
        self._rows = rows
        self._age_s = age_s
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Message, Incoming, float]] = deque()
        self._receipts = Receipts()
        self._bytes = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Take one delivery; its time of receipt is now."""
        incoming = parse(message.topic, message.payload, 0)
        incoming.received_us = self._receipts.stamp(
            incoming.device_id, message.payload, time.time_ns() // 1000,
            bare=incoming.topic == TELEMETRY,
        )  # fmt: skip
        # its age is another clock's: times of receipt are pushed apart, and clocks are set
        self._waiting.append((message, incoming, time.monotonic()))
        self._bytes += message.size
        self._some.set()
        if len(self._waiting) >= self._rows or self._bytes >= self._max_bytes:
            self._enough.set()

    async def take(self) -> Batch:
        """Wait for a batch."""
        await self._some.wait()
        left_s = self._age_s - (time.monotonic() - self._waiting[0][2])
        if left_s > 0 and not self._enough.is_set():
            try:
                async with asyncio.timeout(left_s):
                    await self._enough.wait()
            except TimeoutError:
                pass
        return self._cut()

    def _cut(self) -> Batch:
        batch = Batch([], [], self._waiting[0][2])
        size, waiting = 0, self._waiting
        while waiting and len(batch.messages) < self._rows and size < self._max_bytes:
            message, incoming, _ = waiting.popleft()
            size += message.size
            batch.messages.append(message)
            batch.incoming.append(incoming)
        self._bytes -= size
        if not waiting:
            self._some.clear()
        if len(waiting) < self._rows and self._bytes < self._max_bytes:
            self._enough.clear()
        return batch


def parse(topic: str, payload: bytes, received_us: int) -> Incoming:
    """Split the MQTT topic `paqett/v1/{device}/{topic}`."""
    device_id, _, rest = topic[len(PREFIX) :].partition("/")
    return Incoming(device_id, rest, payload, received_us)
