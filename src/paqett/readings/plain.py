"""The fast path: messages of known numbers and booleans, read straight into columns.

It takes only what `decode` would take whole and without a refusal: an object or an array of
objects on the bare topic whose every member is a metric this device has, of its kind. Whatever
else a message holds sends the whole message the other way; `tests/readings/test_plain.py` holds
the two ways equal.
"""

from typing import Any, Final

import msgspec

from paqett.readings.decode import MAX_ITEMS
from paqett.readings.directory import Entry
from paqett.readings.timestamps import CLOCK_SET_US, PayloadError, parse_ts
from paqett.readings.values import MAX_EXACT_INTEGER

_decode: Final = msgspec.json.Decoder().decode
_EXACT: Final = MAX_EXACT_INTEGER


class Columns:
    """Numbers on their way into one tier: parallel lists, one place for each point.

    `numbers` are the places of their messages in the batch.
    """

    __slots__ = ("numbers", "series", "times", "values")

    def __init__(self) -> None:
        self.series: list[int] = []
        self.times: list[int] = []
        self.values: list[float] = []
        self.numbers: list[int] = []

    def add(self, series_id: int, time_us: int, value: float, number: int) -> None:
        """One point."""
        self.series.append(series_id)
        self.times.append(time_us)
        self.values.append(value)
        self.numbers.append(number)

    def take(self) -> "Columns":
        """What is here, taken away."""
        taken = Columns()
        taken.series, self.series = self.series, taken.series
        taken.times, self.times = self.times, taken.times
        taken.values, self.values = self.values, taken.values
        taken.numbers, self.numbers = self.numbers, taken.numbers
        return taken

    def cut(self, length: int) -> None:
        """Forget everything after the first `length` points."""
        del self.series[length:], self.times[length:], self.values[length:], self.numbers[length:]


def read_plain(
    payload: bytes, entry: Entry, received_us: int, newest_us: int, number: int, columns: Columns
) -> tuple[int, int] | None:
    """Append the message's points to `columns`: the times of its first and its last item, in µs.

    None where the message is not plain; then nothing was appended.
    """
    try:
        message: Any = _decode(payload)
    except (ValueError, RecursionError):
        return None
    before = len(columns.series)
    if type(message) is dict:
        time_us = _read_item(message, entry, received_us, received_us, newest_us, columns)
        if time_us is not None:
            points = len(columns.series) - before
            if points == 1:
                columns.times.append(time_us)
                columns.numbers.append(number)
            else:
                columns.times += [time_us] * points
                columns.numbers += [number] * points
            return time_us, time_us
    elif type(message) is list and 0 < len(message) <= MAX_ITEMS:
        span = _read_array(message, entry, received_us, newest_us, number, columns)
        if span is not None:
            return span
    columns.cut(before)
    return None


def _read_array(
    items: list[Any], entry: Entry, received_us: int, newest_us: int, number: int, columns: Columns
) -> tuple[int, int] | None:
    series, times, numbers = columns.series, columns.times, columns.numbers
    seen: list[int] = []
    for time_us, item in enumerate(items, received_us):
        if type(item) is not dict:
            return None
        before = len(series)
        found_us = _read_item(item, entry, received_us, time_us, newest_us, columns)
        if found_us is None:
            return None
        points = len(series) - before
        times += [found_us] * points
        numbers += [number] * points
        seen.append(found_us)
    return min(seen), max(seen)


def _read_item(
    item: dict[str, Any], entry: Entry, received_us: int, time_us: int, newest_us: int,
    columns: Columns,
) -> int | None:  # fmt: skip
    """Append an item's series and values; its time, or None where it is not plain."""
    ts = item.pop("ts", None)
    if ts is not None and entry.use_device_clock:
        oldest_us = received_us - entry.retention_us
        if type(ts) is int and CLOCK_SET_US <= ts <= newest_us and ts >= oldest_us:
            time_us = ts  # as `_time` would find, for what most devices send
        else:
            time_us = _time(ts, oldest_us, newest_us)
            if not time_us:
                return None
    if "values" in item:
        if len(item) > 1 or type(item["values"]) is not dict:
            return None
        item = item["values"]
    numbers, series, values = entry.numbers, columns.series, columns.values
    try:
        for metric, value in item.items():
            kind = type(value)
            if kind is float or (kind is int and -_EXACT <= value <= _EXACT):
                series.append(numbers[metric])
            elif kind is bool:
                series.append(entry.flags[metric])
            else:
                return None
            values.append(value)
    except KeyError:
        return None
    return time_us


def _time(ts: object, oldest_us: int, newest_us: int) -> int:
    """The time in µs since 1970; 0 where it is not one to take."""
    if type(ts) is int and 10**14 <= ts < 10**17:
        time_us = ts
    else:
        try:
            time_us = parse_ts(ts)
        except PayloadError:
            return 0
    return time_us if max(oldest_us, CLOCK_SET_US) <= time_us <= newest_us else 0
