"""What comes through a door, and what became of it."""

from collections import Counter

import msgspec

from paqett.readings.decode import MAX_ITEMS
from paqett.readings.rejection import Rejection

_BLANK = b" \t\r\n\xef\xbb\xbf"
TELEMETRY = "telemetry"
ATTRIBUTES = "attributes"


class Report(msgspec.Struct):
    """One message's fate in points, for a sender who waits; `unknown`: there is no such device."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejection] = []
    unknown: bool = False

    def clear(self) -> None:
        """As before any attempt: one that is rolled back leaves nothing."""
        self.accepted = self.duplicates = 0
        self.rejected.clear()
        self.unknown = False


class Incoming(msgspec.Struct, eq=False, gc=False):
    """A message as it came.

    `topic` is what follows the device in the MQTT topic; over HTTP it is `telemetry`. `received_us`
    is the time of receipt in µs since 1970, strictly increasing for the device at its door (see
    `Receipts`). `form` is how the payload is written: json, ndjson or csv. With a `report` the
    message's own fate is noted there too.
    """

    device_id: str
    topic: str
    payload: bytes
    received_us: int
    form: str = "json"
    report: Report | None = None


class Refusals(msgspec.Struct):
    """Points of one device refused for one code; times of receipt in µs.

    `limit` is the plan's figure that was passed, `resets_us` when it holds no longer.
    """

    points: int = 0
    first_us: int = 0
    last_us: int = 0
    limit: int | None = None
    resets_us: int | None = None

    def add(self, later: "Refusals") -> None:
        """What was refused after this."""
        self.points += later.points
        self.last_us = later.last_us
        self.limit, self.resets_us = later.limit, later.resets_us


class Outcome(msgspec.Struct):
    """What became of a batch, in points; a message of an unknown device counts as `unknown`.

    `measured_us` holds arrays of the times numbers were measured at, duplicates among them.
    """

    stored: int = 0
    duplicates: int = 0
    unknown: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    refusals: dict[tuple[str, str], Refusals] = {}
    measured_us: list[object] = []

    def tell(self, key: tuple[str, str], refused: Refusals) -> None:
        """Add what a (device, code) was refused."""
        told = self.refusals.setdefault(key, refused)
        if told is not refused:
            told.add(refused)

    def add(self, other: "Outcome") -> None:
        """What became of the rest of a batch."""
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.unknown += other.unknown
        self.rejected += other.rejected
        self.measured_us += other.measured_us
        for key, refused in other.refusals.items():
            self.tell(key, refused)


class Receipts:
    """Times of receipt in µs, strictly increasing for each device.

    Item i takes the time i µs later, so a message takes as many times as it may have items. What
    is stamped here stays so in the spool and through every repetition of a flush.
    """

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._swept_us = 0

    def stamp(
        self, device_id: str, payload: bytes, now_us: int, form: str = "json", *, bare: bool = True
    ) -> int:
        """The time of receipt of `payload`, `now_us` or the next free one.

        `bare` says that it came on the bare topic, where alone an array is many items.
        """
        free = self._next
        received_us = free.get(device_id, 0)
        received_us = max(received_us, now_us)
        items = 1
        if form != "json":
            items += payload.count(b"\n")
        elif payload[:1] != b"{" and bare and payload.lstrip(_BLANK)[:1] == b"[":
            items = min(payload.count(b",") + 1, MAX_ITEMS)  # whatever they are: too many at most
        free[device_id] = received_us + items
        if len(free) > 100_000 and now_us - self._swept_us > 1_000_000:
            self._swept_us = now_us
            self._next = {key: free for key, free in self._next.items() if free > now_us}
        return received_us
