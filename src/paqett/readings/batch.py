"""A flush in memory: every message read, judged against its plan, and put where it belongs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paqett.readings.decode import Decoded, Point, decode
from paqett.readings.directory import Entry
from paqett.readings.forms import decode_csv, decode_lines
from paqett.readings.incoming import ATTRIBUTES, TELEMETRY, Incoming
from paqett.readings.ledger import LATE_BUCKET_EMPTY, Ledger
from paqett.readings.limits import LATE_US, SLOT_US
from paqett.readings.plain import Columns, read_plain
from paqett.readings.rejection import Rejection
from paqett.readings.rows import Numbers, TextRow
from paqett.readings.values import Value, kind_of
from paqett.sqlfiles import array, word_array

AHEAD_US = 600_000_000
"""A reading is at most 10 minutes ahead of its receipt (product contract §3)."""

MOST_LOOKED = 10_000
"""Points without room that a flush looks up, lest they be duplicates: everybody's flush waits."""

_CLOSING = Rejection(0, None, "account_closing", "the account is being deleted")
_FORMS: dict[str, Callable[..., Decoded]] = {"ndjson": decode_lines, "csv": decode_csv}

Identity = tuple[int, int]  # series id, time in µs since 1970
Where = tuple[str, str | None]  # the tier that takes a reading, and the one it is moving from


class _Used:
    """What one device's messages come to in this flush; times in µs. `columns` take its numbers."""

    __slots__ = (
        "bytes", "columns", "duplicates", "first_us", "last_us", "late", "messages", "points"
    )  # fmt: skip

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.messages = self.points = self.bytes = self.duplicates = self.late = 0
        self.first_us = self.last_us = 0

    def note_fresh(self, received_us: int) -> None:
        if not self.first_us:
            self.first_us = received_us
        self.last_us = received_us


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
        self.used: dict[Entry, _Used] = {}
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
            used = self.used[entry] = _Used(self.columns[entry.tier, entry.moving_from])
        used.messages += 1
        used.bytes += size
        entry.used_at_us = received_us
        if message.report is not None:
            message.report.clear()
        if entry.closing:
            self.refuse(entry, message, _CLOSING)
        elif plan is not None and size > plan.message_bytes:
            detail = f"{size} bytes; the plan allows {plan.message_bytes}"
            self.refuse(entry, message, Rejection(0, None, "payload_too_large", detail))
        elif message.topic == TELEMETRY and message.form == "json":
            if entry in self._waiting or not self._take_plain(number, message, entry, used):
                self._decode(number, message, entry)
        elif message.topic.startswith(TELEMETRY) and message.topic[9:10] in ("", "/"):
            self._decode(number, message, entry)
        elif message.topic == ATTRIBUTES:
            if entry.limited and entry.bucket is not None and not entry.bucket.take(received_us):
                self.refuse(entry, message, _too_fast(0, None, entry))
            else:
                self.attributes.append((entry, message))
        else:
            detail = "a device publishes to telemetry, telemetry/… and attributes"
            self.refuse(entry, message, Rejection(0, None, "bad_topic", detail))

    def _take_plain(self, number: int, message: Incoming, entry: Entry, used: _Used) -> bool:
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
        decoded = _decode_any(message, entry)
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
            most = entry.plan.metrics_per_device if entry.plan else None
            detail = f"the plan allows {most} metrics for a device"
            self.refuse(entry, message, Rejection(index, metric, "metric_limit", detail))
            return
        series_id, kind = known
        if kind_of(value) != kind:
            detail = f"the metric is a {kind}; its kind can be changed"
            self.refuse(entry, message, Rejection(index, metric, "type_conflict", detail))
            return
        late = time_us < message.received_us - LATE_US
        too_fast = too_fast and not late
        if entry.limited and (too_fast or not entry.gate.admit_one(late=late)):
            if self._looked >= MOST_LOOKED:
                self.refuse(entry, message, _over(index, metric, entry, too_fast=too_fast))
                return
            self._looked += 1
            over = Over(number, entry, series_id, time_us, metric, value, index, late, too_fast)
            self.over[entry.tier, entry.moving_from].append(over)
            return
        self._keep(number, entry, series_id, time_us, value, late=late)

    def _keep(
        self, number: int, entry: Entry, series_id: int, time_us: int, value: Value, *, late: bool
    ) -> None:
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

    def settle(self, where: Where, present: set[Identity], filled: set[Identity]) -> int:
        """Decide on the points there was no room for; how many of them were duplicates.

        `present` are readings that stand there already, `filled` the (series, start) of aligned 5
        minutes that hold one; both as they are after what there was room for has been stored.
        """
        duplicates = 0
        for point in self.over.pop(where):
            identity = point.series_id, point.time_us
            if identity in present:
                duplicates += 1
                self.used[point.entry].duplicates += 1
                report = self._messages[point.number].report
                if report is not None:
                    report.duplicates += 1
            elif self._admit(point, filled):
                present.add(identity)
                filled.add((point.series_id, slot_of(point.time_us)))
                self._keep(
                    point.number, point.entry, point.series_id, point.time_us, point.value,
                    late=point.late,
                )  # fmt: skip
        return duplicates

    def _admit(self, point: Over, filled: set[Identity]) -> bool:
        gate = point.entry.gate
        if not point.too_fast and gate.admit_one(late=point.late):
            return True
        code, detail = "quota_exceeded", "150 % of the day's quota is used"
        if point.late:
            detail = LATE_BUCKET_EMPTY
        elif point.too_fast:
            rejection = _too_fast(point.item, point.metric, point.entry)
            self.refuse(point.entry, self._messages[point.number], rejection)
            return False
        elif (point.series_id, slot_of(point.time_us)) in filled:
            code = "quota_thinned"
            detail = "past the day's quota one reading of a series is kept in 5 minutes"
        elif gate.admit_thinned():
            return True
        rejection = Rejection(point.item, point.metric, code, detail)
        self.refuse(point.entry, self._messages[point.number], rejection)
        return False

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

    def usage_columns(self) -> dict[str, object]:
        """What `count_usage` takes, by device: arrays as PostgreSQL writes them, times in µs."""
        entries, used = list(self.used), list(self.used.values())
        buckets = [entry.bucket for entry in entries]
        return {
            "accounts": array([entry.account_id for entry in entries]),
            "devices": word_array([entry.device_id for entry in entries]),
            "messages": array([u.messages for u in used]),
            "points": array([u.points for u in used]),
            "bytes": array([u.bytes for u in used]),
            "duplicates": array([u.duplicates for u in used]),
            "late": array([u.late for u in used]),
            "first_fresh": array([u.first_us or None for u in used]),
            "last_fresh": array([u.last_us or None for u in used]),
            "tokens": array([None if b is None else b.tokens for b in buckets]),
            "tokens_at": array([None if b is None else b.at_us for b in buckets]),
        }


def _over(index: int, metric: str, entry: Entry, *, too_fast: bool) -> Rejection:
    if too_fast:
        return _too_fast(index, metric, entry)
    return Rejection(index, metric, "quota_exceeded", "far more than there is room for")


def _too_fast(index: int, metric: str | None, entry: Entry) -> Rejection:
    rate, burst = (
        (entry.plan.messages_per_second, entry.plan.message_burst) if entry.plan else (0, 0)
    )
    detail = f"more than {rate} messages a second, beyond a burst of {burst or rate}"
    return Rejection(index, metric, "rate_limited", detail)


def slot_of(time_us: int) -> int:
    """The beginning of the aligned 5 minutes a time lies in; both in µs since 1970."""
    return time_us // SLOT_US * SLOT_US


def _decode_any(message: Incoming, entry: Entry) -> Decoded:
    reading = _FORMS.get(message.form)
    if reading is None:
        path = message.topic[10:] or ("/" if message.topic[9:] else "")
        reading = partial(decode, path=path)
    return reading(
        message.payload,
        received_us=message.received_us,
        oldest_us=message.received_us - entry.retention_us,
        newest_us=message.received_us + AHEAD_US,
        use_device_clock=entry.use_device_clock,
    )
