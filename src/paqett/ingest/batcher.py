"""Collect deliveries until there are enough, or the oldest has waited long enough."""

import asyncio
import time
from collections import deque

import msgspec

from paqett.mqtt.consumer import Message
from paqett.readings.incoming import Incoming, Receipts

PREFIX = "paqett/v1/"


class Batch(msgspec.Struct):
    """Deliveries, and in parallel what they say."""

    messages: list[Message]
    incoming: list[Incoming]


class Batcher:
    """A queue read in batches of at most `rows` messages or `max_bytes` of payload."""

    def __init__(self, rows: int, age_s: float, max_bytes: int = 4 * 2**20) -> None:
        self._rows = rows
        self._age_us = round(age_s * 1_000_000)
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Message, Incoming]] = deque()
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
            incoming.device_id, message.payload, time.time_ns() // 1000
        )
        self._waiting.append((message, incoming))
        self._bytes += len(message.payload)
        self._some.set()
        if len(self._waiting) >= self._rows or self._bytes >= self._max_bytes:
            self._enough.set()

    async def take(self) -> Batch:
        """Wait for a batch."""
        await self._some.wait()
        oldest_us = self._waiting[0][1].received_us
        left_us = self._age_us - (time.time_ns() // 1000 - oldest_us)
        if left_us > 0 and not self._enough.is_set():
            try:
                async with asyncio.timeout(left_us / 1e6):
                    await self._enough.wait()
            except TimeoutError:
                pass
        return self._cut()

    def _cut(self) -> Batch:
        batch = Batch([], [])
        size, waiting = 0, self._waiting
        while waiting and len(batch.messages) < self._rows and size < self._max_bytes:
            message, incoming = waiting.popleft()
            size += len(message.payload)
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
