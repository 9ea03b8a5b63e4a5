"""Query parameters that people write: times, durations, lists."""

import re
from datetime import UTC, datetime, timedelta

from paqett.errors import Invalid
from paqett.readings.buckets import from_us
from paqett.readings.timestamps import PayloadError, parse_ts

_UNITS = {
    "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks",
}  # fmt: skip
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", re.ASCII)
_EPOCH_MS = re.compile(r"\d{1,15}", re.ASCII)


def _duration(text: str) -> timedelta:
    """`10s`, `5m`, `1.5h`, `1d`, `1w`. Raises `ValueError`."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(text)
    return timedelta(**{_UNITS[found[2]]: float(found[1])})


def moment(text: str, now: datetime, field: str) -> datetime:
    """RFC 3339 with an offset, epoch milliseconds, `now`, or `-24h`. Raises `Invalid`."""
    try:
        if text == "now":
            return now
        if text.startswith("-"):
            return now - _duration(text[1:])
        if _EPOCH_MS.fullmatch(text):
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        # a plus sign in a query string arrives as a space
        text = re.sub(r" (\d\d:\d\d)$", r"+\1", text)
        if ":60" in text:  # a leap second
            return from_us(parse_ts(text))
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError, OSError, PayloadError):
        raise Invalid(
            f"{field} must be RFC 3339 with an offset, epoch milliseconds, or relative like -24h.",
            field=field,
        ) from None
    raise Invalid(f"{field} lacks its offset from UTC, such as Z.", field=field)


def words(text: str | None) -> list[str] | None:
    """A list separated by commas; None for none."""
    return None if text is None else [word for word in text.split(",") if word]
