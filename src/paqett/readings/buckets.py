"""Buckets of time: of one length everywhere, or days, weeks and months of a time zone.

A bucket has a number; number 0 begins on Monday, 2000-01-03 (months: 2000-01-01) at midnight in the
zone. Fixed lengths count from that instant, so hours begin at full hours of zones that are half an
hour off, and a daylight-saving change never makes a bucket longer or shorter.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from paqett.errors import Invalid

US = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_US = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}
_FIXED = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", re.ASCII)
_CALENDAR = re.compile(r"([1-9]\d{0,4})(d|w|mo)", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_ORIGIN = date(2000, 1, 3)
_SHORTEST_US = 1000
_LONGEST_DAYS = 36_600
_LONGEST_US = _LONGEST_DAYS * 86_400 * 10**6
_WRONG = "bucket is a duration like 10s, 5m or 1h, from 1ms to 100 years, or days, weeks or months"
# each divides the next larger unit, so that marks of an axis fall on its buckets
_NICE = (
    *(f"{n}ms" for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(f"{n}{unit}" for unit in "sm" for n in (1, 2, 5, 10, 15, 30)),
    *(f"{n}h" for n in (1, 2, 3, 6, 12)),
    *("1d", "1w", "1mo", "2mo", "3mo", "6mo", "12mo", "60mo", "120mo", "1200mo"),
)


class Bucket(msgspec.Struct, frozen=True):
    """`count` microseconds (`us`), days (`d`) or months (`mo`) of the zone `tz`."""

    text: str
    count: int
    unit: str
    tz: str

    @property
    def fixed(self) -> bool:
        """Whether every bucket is equally long."""
        return self.unit == "us"

    @property
    def origin(self) -> datetime:
        """Where bucket 0 of a fixed length begins."""
        return _midnight(_ORIGIN, self.tz)

    def number(self, time: datetime) -> int:
        """The number of the bucket that `time` lies in."""
        if self.fixed:
            return (time - self.origin) // (US * self.count)
        day = time.astimezone(ZoneInfo(self.tz)).date()
        if self.unit == "d":
            found = (day - _ORIGIN).days // self.count
        else:
            found = (12 * (day.year - 2000) + day.month - 1) // self.count
        # a zone that skips midnight may begin a date before its own 00:00
        return found if self.start(found) <= time else found - 1

    def start(self, number: int) -> datetime:
        """When a bucket begins, in UTC."""
        if self.fixed:
            return self.origin + number * self.count * US
        if self.unit == "d":
            return _midnight(_ORIGIN + timedelta(days=number * self.count), self.tz)
        year, month = divmod(2000 * 12 + number * self.count, 12)
        return _midnight(date(year, month + 1, 1), self.tz)

    def starts(self, first: int, end: int) -> list[datetime]:
        """The beginnings of the buckets from `first` to before `end`, each once."""
        return sorted({self.start(number) for number in range(first, end)})

    def covering(self, from_: datetime, to: datetime) -> range:
        """The numbers of the buckets that `[from_, to)` touches."""
        if from_ >= to:
            return range(0)
        return range(self.number(from_), self.number(to - US) + 1)


@lru_cache(maxsize=4096)
def _midnight(day: date, tz: str) -> datetime:
    """The first instant of a date: the first 00:00 of two, or what follows a skipped one."""
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(tz))
    return local.astimezone(UTC)


def zone(name: str) -> str:
    """The name of a time zone. Raises `Invalid`."""
    try:
        if _ZONE.fullmatch(name) and len(name) <= 64:
            return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise Invalid("tz is the name of a time zone, such as Europe/Berlin or UTC.", field="tz")


def length(text: str) -> int:
    """`10s`, `5m`, `1.5h` in microseconds, 0 for what is none."""
    found = _FIXED.fullmatch(text)
    if not found:
        return 0
    exact = Fraction(found[1]) * _UNITS_US[found[2]]
    return int(exact) if exact.denominator == 1 else 0


def parse(text: str, tz: str) -> Bucket:
    """A bucket as it is asked for; `tz` is a zone that exists. Raises `Invalid`."""
    calendar = _CALENDAR.fullmatch(text)
    if calendar:
        count = int(calendar[1]) * (7 if calendar[2] == "w" else 1)
        unit = "mo" if calendar[2] == "mo" else "d"
        if count * (30 if unit == "mo" else 1) <= _LONGEST_DAYS:
            return Bucket(text, count, unit, tz)
    elif _SHORTEST_US <= length(text) <= _LONGEST_US:
        return Bucket(text, length(text), "us", tz)
    raise Invalid(f"{_WRONG} (1d, 1w, 1mo).", field="bucket")


def choose(points: int, from_: datetime, to: datetime, tz: str) -> Bucket:
    """The shortest nice bucket of which `[from_, to)` touches at most `points`, or the longest."""
    *nice, longest = (parse(text, tz) for text in _NICE)
    for bucket in nice:
        if len(bucket.covering(from_, to)) <= points:
            return bucket
    return longest


def stretches(whole: range, first: int, *, descending: bool) -> Iterator[range]:
    """`whole` in pieces, each four times the last, from its beginning or its end.

    Whoever needs a page of rows looks at no more than a few times what they come from.
    """
    low, high, size = whole.start, whole.stop, max(1, first)
    while low < high:
        if descending:
            yield range(max(low, high - size), high)
            high -= size
        else:
            yield range(low, min(high, low + size))
            low += size
        size *= 4


def to_us(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // US


def from_us(time_us: int) -> datetime:
    """The reverse of `to_us`. Raises `OverflowError`."""
    return _EPOCH + time_us * US
