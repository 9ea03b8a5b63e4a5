"""Collect deliveries until there are enough, or the oldest has waited long enough."""

import asyncio
import time
from time import monotonic

import msgspec

from paqett.mqtt.consumer import Message
from paqett.readings.incoming import TELEMETRY, Incoming, Receipts

PREFIX = "paqett/v1/"
_PREFIX_LENGTH = len(PREFIX)


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
        self._messages: list[Message] = []
        self._incoming: list[Incoming] = []
        self._since: list[float] = []
        self._receipts = Receipts()
        self._bytes = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Take one delivery; its time of receipt is now."""
        payload, waiting = message.payload, self._messages
        device_id, _, topic = message.topic[_PREFIX_LENGTH:].partition("/")
        received_us = self._receipts.stamp(
            device_id, payload, time.time_ns() // 1000, bare=topic == TELEMETRY
        )
        # its age is another clock's: times of receipt are pushed apart, and clocks are set
        self._since.append(monotonic())
        self._incoming.append(Incoming(device_id, topic, payload, received_us))
        waiting.append(message)
        self._bytes += message.size
        if len(waiting) == 1:
            self._some.set()
        if len(waiting) >= self._rows or self._bytes >= self._max_bytes:
            self._enough.set()

    async def take(self) -> Batch:
        """Wait for a batch."""
        await self._some.wait()
        left_s = self._age_s - (time.monotonic() - self._since[0])
        if left_s > 0 and not self._enough.is_set():
            try:
                async with asyncio.timeout(left_s):
                    await self._enough.wait()
            except TimeoutError:
                pass
        return self._cut()

    def _cut(self) -> Batch:
        count, size = self._measure()
        batch = Batch(self._messages[:count], self._incoming[:count], self._since[0])
        del self._messages[:count], self._incoming[:count], self._since[:count]
        self._bytes -= size
        if not self._messages:
            self._some.clear()
        if len(self._messages) < self._rows and self._bytes < self._max_bytes:
            self._enough.clear()
        return batch

    def _measure(self) -> tuple[int, int]:
        """How many messages make a batch, and their bytes."""
        if self._bytes < self._max_bytes and len(self._messages) <= self._rows:
            return len(self._messages), self._bytes
        count = size = 0
        for message in self._messages[: self._rows]:
            count += 1
            size += message.size
            if size >= self._max_bytes:
                break
        return count, size


def parse(topic: str, payload: bytes, received_us: int) -> Incoming:
    """Split the MQTT topic `paqett/v1/{device}/{topic}`."""
    device_id, _, rest = topic[_PREFIX_LENGTH:].partition("/")
    return Incoming(device_id, rest, payload, received_us)
