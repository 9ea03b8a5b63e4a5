"""Query parameters that people write: times, durations, lists."""

import re
from datetime import UTC, datetime, timedelta

from paqett.errors import Invalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)")
_EPOCH_MS = re.compile(r"\d{1,15}")
_SHORTEST_S = 0.001
_LONGEST_S = 100 * 366 * 86_400


def seconds(text: str, field: str) -> float:
    """`10s`, `5m`, `1.5h`, `1d` in seconds. Raises `Invalid`."""
    found = _DURATION.fullmatch(text)
    length = float(found[1]) * (0.001 if found[2] == "ms" else _UNITS[found[2]]) if found else 0.0
    if not _SHORTEST_S <= length <= _LONGEST_S:
        raise Invalid(f"{field} must be a duration like 10s, 5m, 1h or 1d.", field=field)
    return length


def moment(text: str, now: datetime, field: str) -> datetime:
    """RFC 3339 with an offset, epoch milliseconds, `now`, or `-24h`. Raises `Invalid`."""
    try:
        if text == "now":
            return now
        if text.startswith("-"):
            return now - timedelta(seconds=seconds(text[1:], field))
        if _EPOCH_MS.fullmatch(text):
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        # a plus sign in a query string arrives as a space
        time = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise Invalid(
            f"{field} must be RFC 3339 with an offset, epoch milliseconds, or relative like -24h.",
            field=field,
        ) from None
    raise Invalid(f"{field} lacks its offset from UTC, such as Z.", field=field)


def words(text: str | None) -> list[str] | None:
    """A list separated by commas; None for none."""
    return None if text is None else [word for word in text.split(",") if word]
