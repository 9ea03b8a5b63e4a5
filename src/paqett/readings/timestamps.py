"""A device's timestamps and numbers written as text (product contract: payload).

Pure. Times are whole microseconds (µs) since 1970-01-01T00:00:00Z.
"""

import re
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Final

from paqett.errors import PaqettError

CLOCK_SET_US: Final = 978_307_200_000_000
"""2001-01-01T00:00:00Z: a device clock before it was never set."""
_LONGEST_TS: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND_US: Final = 1_000_000
_DAY_US: Final = 86_400 * _SECOND_US
_SECONDS_BELOW: Final = 10**11
_MILLISECONDS_BELOW: Final = 10**14
_MICROSECONDS_BELOW: Final = 10**17
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER: Final = 512
_INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)
_NOT_FINITE: Final = frozenset(
    {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "+nan", "-nan"}
)
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)"
    r"((?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
)


class PayloadError(PaqettError):
    """A message, item, timestamp, name or value that the contract refuses, with its code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def parse_ts(ts: object) -> int:
    """Return a device's timestamp in µs since 1970-01-01T00:00:00Z (product contract: payload).

    Takes RFC 3339 with an offset (``t``, ``z`` and a space for ``T`` too) and numbers, also as
    strings, whose size tells the unit: |ts| < 1e11 s, < 1e14 ms, < 1e17 µs, else ns. Digits below
    the µs are cut off, except that seconds and milliseconds written as a fraction are rounded,
    since no double holds them exactly. A leap second, ``:60`` at the end of a UTC month, is the
    first second of the next. Raises PayloadError ``bad_ts`` for all else.
    """
    if type(ts) is str:
        ts = ts.strip() if len(ts) <= _LONGEST_TS else ""
        if match := _RFC3339.fullmatch(ts):
            return _parse_rfc3339(*match.groups())
        ts = parse_number(ts)
    if type(ts) is int:
        return _integer_to_us(ts)
    if type(ts) is float and isfinite(ts):
        return _float_to_us(ts)
    raise _bad_ts()


def check_window(time_us: int, oldest_us: int, newest_us: int) -> None:
    """Raise PayloadError unless a device's time lies in the window, its edges included.

    ``clock_not_set`` before 2001, ``ts_too_old`` before `oldest_us`, ``ts_in_future`` after
    `newest_us`; all in µs.
    """
    if time_us < CLOCK_SET_US:
        raise PayloadError("clock_not_set", f"ts is {rfc3339(time_us)}: before 2001-01-01")
    if time_us < oldest_us:
        raise PayloadError(
            "ts_too_old", f"ts is {rfc3339(time_us)}; the oldest kept is {rfc3339(oldest_us)}"
        )
    if time_us > newest_us:
        raise PayloadError(
            "ts_in_future",
            f"ts is {rfc3339(time_us)}; the latest accepted is {rfc3339(newest_us)}",
        )


def _parse_rfc3339(to_minute: str, second: str, rest: str) -> int:
    leap = second == "60"
    text = f"{to_minute}{'59' if leap else second}{rest}".upper()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _bad_ts() from None
    time_us = (moment - _EPOCH) // _MICROSECOND
    if not leap:
        return time_us
    time_us += _SECOND_US
    if not _begins_utc_month(time_us):
        raise _bad_ts()
    return time_us


def _begins_utc_month(time_us: int) -> bool:
    """Whether the time lies in the first second of a month."""
    if time_us % _DAY_US >= _SECOND_US:
        return False
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).day == 1
    except OverflowError:
        return False


def _integer_to_us(ts: int) -> int:
    size = abs(ts)
    if size < _SECONDS_BELOW:
        return ts * 1_000_000
    if size < _MILLISECONDS_BELOW:
        return ts * 1_000
    return ts if size < _MICROSECONDS_BELOW else ts // 1_000


def _float_to_us(ts: float) -> int:
    size = abs(ts)
    if size < _SECONDS_BELOW:
        return round(ts * 1e6)
    if size < _MILLISECONDS_BELOW:
        return round(ts * 1e3)
    return int(ts) if size < _MICROSECONDS_BELOW else int(ts) // 1_000


def _bad_ts() -> PayloadError:
    return PayloadError(
        "bad_ts", "ts is RFC 3339 with an offset, or a Unix time in seconds, ms, µs or ns"
    )


def rfc3339(time_us: int) -> str:
    """As text, in UTC; a time outside the calendar is told in words."""
    try:
        moment = _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return "before year 1" if time_us < 0 else "after year 9999"
    return moment.isoformat().replace("+00:00", "Z")


def parse_number(text: str) -> int | float | None:
    """Return the number that a text is, infinite where it is out of range; None if it is none.

    Broader than JSON: a leading ``+`` or zero, nothing before or after the point. Narrower than
    `float`: ASCII digits without separators. The number of a signed "nan", as C prints it, is nan.
    """
    if len(text) > _LONGEST_NUMBER:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) or text.lower() in _NOT_FINITE:
        return float(text)
    return None
