"""A flush in memory: every message read, judged against its plan, and put where it belongs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paqett.readings import refusing
from paqett.readings.decode import Decoded, Point
from paqett.readings.directory import Entry
from paqett.readings.forms import decode_incoming
from paqett.readings.incoming import ATTRIBUTES, TELEMETRY, Incoming
from paqett.readings.ledger import Ledger
from paqett.readings.limits import AHEAD_US, LATE_US
from paqett.readings.plain import Columns, read_plain
from paqett.readings.rejection import Rejection
from paqett.readings.rows import Numbers, TextRow
from paqett.readings.used import Used
from paqett.readings.values import Value, kind_of

MOST_LOOKED = 10_000
"""Points without room that a flush looks up, lest they be duplicates: everybody's flush waits."""

Where = tuple[str, str | None]  # the tier that takes a reading, and the one it is moving from


class _Read(NamedTuple):
    """A message the fast path would not take, decoded; its points wait for their series."""

    number: int
    entry: Entry
    decoded: Decoded
    too_fast: bool


class Over(NamedTuple):
    """A point its account has no room for: unless it is a duplicate, or duplicates made room."""

    number: int
    entry: Entry
    series_id: int
    time_us: int
    metric: str
    value: Value
    item: int
    late: bool
    too_fast: bool = False  # of a message beyond the device's rate


class Batch:
    """`messages` and, in parallel, their devices' entries; None for a device that is not known."""

    def __init__(self, messages: Sequence[Incoming], entries: list[Entry | None]) -> None:
        self._messages = messages
        self._entries = entries
        self._next = 0
        self._reading: list[_Read] = []
        self._waiting: set[Entry] = set()
        self._looked = 0
        self.accounts = np.array([0 if e is None else e.account_id for e in entries], np.int64)
        self.columns: dict[Where, Columns] = defaultdict(Columns)
        self.texts: dict[Where, list[TextRow]] = defaultdict(list)
        self.over: dict[Where, list[Over]] = defaultdict(list)
        self.attributes: list[tuple[Entry, Incoming]] = []
        self.used: dict[Entry, Used] = {}
        self.ledger = Ledger()
        self.unknown = entries.count(None)
        self.known = {entry for entry in set(entries) if entry is not None}
        """The devices this batch is of."""
        self.judged = False  # whether alert rules want to see what is stored, in `seen_…`
        self.seen_numbers: list[Numbers] = []
        self.seen_texts: list[TextRow] = []
        self.seen_over: list[Over] = []

    @cached_property
    def received_us(self) -> NDArray[np.int64]:
        """The messages' times of receipt, by their places."""
        count = len(self._messages)
        return np.fromiter((message.received_us for message in self._messages), np.int64, count)

    def refuse(self, entry: Entry, message: Incoming, rejection: Rejection) -> None:
        """Note a refusal; it costs nothing but itself."""
        self.ledger.add(entry, message, rejection)

    def read(self, where: Where | None = None, rows: int = 0) -> bool:
        """Decode messages until `columns[where]` has `rows` rows; whether any message is left.

        Without `where` all of them. What is plain stands in `columns` afterwards; the rest waits
        for `place`, with everything its devices sent after it: of equal identities the first stays.
        """
        columns = self.columns[where] if where else None
        for number in range(self._next, len(self._messages)):
            if columns is not None and len(columns.series) >= rows:
                self._next = number
                return True
            entry = self._entries[number]
            message = self._messages[number]
            if entry is not None:
                self._read(number, message, entry)
            elif message.report is not None:
                message.report.unknown = True
        self._next = len(self._messages)
        return False

    def take(self, where: Where) -> Columns:
        """What has been read for `where` so far, taken away."""
        return self.columns[where].take()

    def put_back(self, where: Where, parts: list[Columns]) -> None:
        """What was taken and could not be stored, before what is there."""
        columns = self.columns[where]
        for part in [*parts, columns.take()]:
            columns.series += part.series
            columns.times += part.times
            columns.values += part.values
            columns.numbers += part.numbers

    def main_tier(self) -> str | None:
        """The tier most of the known devices' readings go to."""
        tiers = Counter(entry.tier for entry in self.known if not entry.moving_from)
        return tiers.most_common(1)[0][0] if tiers else None

    def _read(self, number: int, message: Incoming, entry: Entry) -> None:
        received_us, size, plan = message.received_us, len(message.payload), entry.plan
        used = self.used.get(entry)
        if used is None:
            used = self.used[entry] = Used(self.columns[entry.tier, entry.moving_from])
        used.messages += 1
        used.bytes += size
        entry.used_at_us = received_us
        if message.report is not None:
            message.report.clear()
        if entry.closing:
            self.refuse(entry, message, refusing.CLOSING)
        elif plan is not None and size > plan.message_bytes:
            self.refuse(entry, message, refusing.too_large(size, plan))
        elif message.topic == TELEMETRY and message.form == "json":
            if entry in self._waiting or not self._take_plain(number, message, entry, used):
                self._decode(number, message, entry)
        elif message.topic.startswith(TELEMETRY) and message.topic[9:10] in ("", "/"):
            self._decode(number, message, entry)
        elif message.topic == ATTRIBUTES:
            if entry.limited and entry.bucket is not None and not entry.bucket.take(received_us):
                self.refuse(entry, message, refusing.too_fast(0, None, plan))
            else:
                self.attributes.append((entry, message))
        else:
            self.refuse(entry, message, refusing.BAD_TOPIC)

    def _take_plain(self, number: int, message: Incoming, entry: Entry, used: Used) -> bool:
        """The fast path; false where the message must go the other way."""
        columns, received_us = used.columns, message.received_us
        before = len(columns.series)
        span = read_plain(
            message.payload, entry, received_us, received_us + AHEAD_US, number, columns
        )
        if span is None:
            return False
        points = len(columns.series) - before
        oldest_us, newest_us = span
        late_us = received_us - LATE_US
        if not points:
            return True
        if oldest_us >= late_us:
            if entry.limited and not self._admit_fresh(entry, newest_us, received_us, points):
                columns.cut(before)
                return False
            used.note_fresh(received_us)
        elif newest_us < late_us:
            if entry.limited and not entry.gate.admit_late(points):
                columns.cut(before)
                return False
            used.late += points
        else:
            columns.cut(before)
            return False
        used.points += points
        if message.report is not None:
            message.report.accepted += points
        return True

    def _admit_fresh(self, entry: Entry, newest_us: int, received_us: int, points: int) -> bool:
        if not entry.gate.admit(points):
            return False
        if entry.bucket is None or entry.bucket.take(min(newest_us, received_us)):
            return True
        entry.gate.take_back(points, late=False)
        return False

    def _decode(self, number: int, message: Incoming, entry: Entry) -> None:
        """The other way: refusals are noted, points wait in `_reading` for their series."""
        decoded = decode_incoming(message, entry)
        for rejection in decoded.rejections:
            self.refuse(entry, message, rejection)
        if not decoded.points:
            return
        received_us = message.received_us
        late_us = received_us - LATE_US
        newest_us = max(point[0] for point in decoded.points)
        too_fast = False
        if newest_us >= late_us:
            limited = entry.limited and entry.bucket is not None
            too_fast = limited and not entry.bucket.take(min(newest_us, received_us))
        self._reading.append(_Read(number, entry, decoded, too_fast))
        self._waiting.add(entry)

    def unseen(self) -> dict[tuple[Entry, str], str]:
        """Metrics these devices do not have yet, with the kind of their first value."""
        found: dict[tuple[Entry, str], str] = {}
        for _, entry, decoded, _ in self._reading:
            if entry.room() <= 0:
                continue
            for _, metric, value in decoded.points:
                if metric not in entry.series:
                    found.setdefault((entry, metric), kind_of(value))
        return found

    def place(self) -> None:
        """Put what was decoded the long way where it belongs, now that its series exist."""
        for number, entry, decoded, too_fast in self._reading:
            for point, index in zip(decoded.points, decoded.indexes, strict=True):
                self._place(number, entry, point, index, too_fast=too_fast)

    def _place(
        self, number: int, entry: Entry, point: Point, index: int, *, too_fast: bool
    ) -> None:
        time_us, metric, value = point
        message = self._messages[number]
        known = entry.series.get(metric)
        if known is None:
            self.refuse(entry, message, refusing.no_more_metrics(index, metric, entry.plan))
            return
        series_id, kind = known
        if kind_of(value) != kind:
            self.refuse(entry, message, refusing.of_another_kind(index, metric, kind))
            return
        late = time_us < message.received_us - LATE_US
        too_fast = too_fast and not late
        if entry.limited and (too_fast or not entry.gate.admit_one(late=late)):
            if self._looked >= MOST_LOOKED:
                rejection = (
                    refusing.too_fast(index, metric, entry.plan)
                    if too_fast
                    else refusing.far_over(index, metric)
                )
                self.refuse(entry, message, rejection)
                return
            self._looked += 1
            over = Over(number, entry, series_id, time_us, metric, value, index, late, too_fast)
            self.over[entry.tier, entry.moving_from].append(over)
            return
        self.keep(number, entry, series_id, time_us, value, late=late)

    def keep(
        self, number: int, entry: Entry, series_id: int, time_us: int, value: Value, *, late: bool
    ) -> None:
        """Put a point that was admitted where it belongs, and count it."""
        where = entry.tier, entry.moving_from
        if isinstance(value, str):
            self.texts[where].append((series_id, time_us, number, value))
        else:
            self.columns[where].add(series_id, time_us, value, number)
        used = self.used[entry]
        used.points += 1
        if late:
            used.late += 1
        else:
            used.note_fresh(self._messages[number].received_us)
        report = self._messages[number].report
        if report is not None:
            report.accepted += 1

    def note_duplicate(self, point: Over) -> None:
        """A point there was no room for is there already; nothing was admitted of it."""
        self.used[point.entry].duplicates += 1
        report = self._messages[point.number].report
        if report is not None:
            report.duplicates += 1

    def refuse_over(self, point: Over, rejection: Rejection) -> None:
        """A point there was no room for is refused."""
        self.refuse(point.entry, self._messages[point.number], rejection)

    def note_duplicates(self, again: Iterable[tuple[int, int]]) -> None:
        """Take back what was admitted: (message, time in µs) of points that were there already."""
        for number, time_us in again:
            entry, message = self._entries[number], self._messages[number]
            if entry is None:
                continue
            late = time_us < message.received_us - LATE_US
            used = self.used[entry]
            used.points -= 1
            used.duplicates += 1
            used.late -= late
            if entry.limited:
                entry.gate.take_back(1, late=late)
            if message.report is not None:
                message.report.accepted -= 1
                message.report.duplicates += 1
