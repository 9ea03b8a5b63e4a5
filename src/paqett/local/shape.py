"""What a load consists of: the messages as packets, and the same readings as rows.

Standard library alone: the publisher's process imports this.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from paqett.local.packets import publish_packet

STEP_US = 5_000
"""Between two readings of a device: small, so that no run reaches ten minutes ahead."""
REPEAT_DISTANCE = 41
"""A repeated message is the one so many before: committed by then, and never a repeat itself."""

_packet_id = struct.Struct("!H").pack_into
_VALUES = [10 + n / 10 for n in range(100)]
_WRITTEN = [f"{value:.1f}".encode() for value in _VALUES]


@dataclass(frozen=True)
class Shape:
    """Readings in a message, the device's metrics, how many of them a reading holds, in turn."""

    items: int = 1
    metrics: list[str] = field(default_factory=lambda: ["temperature", "humidity", "battery"])
    per_item: int = 3
    repeat_every: int = 0

    @property
    def points(self) -> int:
        """Points, that is rows, in a message."""
        return self.items * self.per_item

    def source(self, number: int) -> int:
        """The message whose readings message `number` carries: itself, unless it is a repeat."""
        every = self.repeat_every
        if every and number >= REPEAT_DISTANCE and number % every == every - 1:
            return number - REPEAT_DISTANCE
        return number

    def distinct(self, messages: int) -> int:
        """Messages among a device's first `messages` that are no repeats."""
        return sum(self.source(number) == number for number in range(messages))

    def _metrics_at(self, reading: int) -> list[str]:
        first, count = reading * self.per_item, len(self.metrics)
        return [self.metrics[(first + n) % count] for n in range(self.per_item)]


class Packets:
    """A device's PUBLISH packets, one behind the other, all of the same length."""

    def __init__(self, device_id: str, shape: Shape, messages: int, start_us: int, qos: int):
        bodies = _Bodies(shape, start_us)
        blank = publish_packet(f"paqett/v1/{device_id}/telemetry", bodies.payload(0), qos, 0)
        payload_bytes = len(bodies.payload(0))
        head = blank[: len(blank) - payload_bytes]
        self.size = len(blank)
        self.payload_at = len(head)
        payloads = (bodies.payload(shape.source(number)) for number in range(messages))
        self.data = bytearray(b"".join(head + payload for payload in payloads))
        if len(self.data) != self.size * messages:
            raise ValueError("the packets differ in length")
        if qos:
            for number in range(messages):
                _packet_id(self.data, number * self.size + len(head) - 2, number % 65_535 + 1)

    def stamp(self, number: int, time_us: int) -> None:
        """Give message `number`, of one reading, the time it is sent at."""
        at = number * self.size + self.payload_at + 6
        self.data[at : at + 16] = b"%d" % time_us


class _Bodies:
    """Payloads of one shape; what repeats from message to message is written once."""

    def __init__(self, shape: Shape, start_us: int) -> None:
        self._shape = shape
        self._start_us = start_us
        self._templates: dict[int, bytes] = {}

    def _template(self, reading: int) -> bytes:
        turn = reading * self._shape.per_item % len(self._shape.metrics)
        if turn not in self._templates:
            names = self._shape._metrics_at(reading)  # noqa: SLF001 - of one module
            members = "".join(f',"{name}":%b' for name in names)
            self._templates[turn] = ('{"ts":%d' + members + "}").encode()
        return self._templates[turn]

    def payload(self, number: int) -> bytes:
        """Message `number`: an object, or an array where it holds several readings."""
        shape, parts = self._shape, []
        for reading in range(number * shape.items, (number + 1) * shape.items):
            value = _WRITTEN[reading % 100]
            time_us = self._start_us + reading * STEP_US
            parts.append(self._template(reading) % (time_us, *(value,) * shape.per_item))
        return parts[0] if shape.items == 1 else b"[" + b",".join(parts) + b"]"


Row = tuple[int, int, int, float]  # series id, time in µs since 1970, account id, value


def rows(
    shape: Shape, fleet: list[tuple[int, dict[str, int]]], start_us: int, limit: int
) -> Iterator[Row]:
    """The first `limit` rows that the messages of `fleet` amount to, in the order of sending.

    `fleet` holds (account, series by metric) for each device.
    """
    left, number = limit, 0
    while True:
        for account, series in fleet:
            for reading in range(number * shape.items, (number + 1) * shape.items):
                time_us, value = start_us + reading * STEP_US, _VALUES[reading % 100]
                for metric in shape._metrics_at(reading):  # noqa: SLF001 - of one module
                    if not left:
                        return
                    left -= 1
                    yield series[metric], time_us, account, value
        number += 1
