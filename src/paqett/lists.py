"""Lists in pages: what they answer, and the cursors that say where the next page begins.

A list is in the order of an id, or of a time and, among what has the same time, a key.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from paqett.errors import Invalid

_ID = re.compile(r"[0-9]{1,18}")


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next_cursor` is None on the last page."""

    items: list[Any]
    next_cursor: str | None


def read_id(cursor: str | None) -> int | None:
    """Behind which id the page begins; None for the first page. Raises `Invalid`."""
    if cursor is None:
        return None
    if not _ID.fullmatch(cursor):
        raise _not_ours()
    return int(cursor)


def next_id(rows: Sequence[Mapping[str, Any]], limit: int) -> str | None:
    """The cursor behind the page's `limit` rows; None unless one more was found."""
    return str(rows[limit - 1]["id"]) if len(rows) > limit else None


def read_time(cursor: str | None, key: re.Pattern[str]) -> tuple[datetime | None, str | None]:
    """Behind which time and key the page begins; None for the first page. Raises `Invalid`."""
    if cursor is None:
        return None, None
    try:
        time, _, rest = urlsafe_b64decode(cursor).decode().partition(" ")
        if key.fullmatch(rest):
            # as UTC: PostgreSQL knows no offsets of a whole day, as Python does
            return datetime.fromisoformat(time).astimezone(UTC), rest
    except (ValueError, OverflowError):
        pass
    raise _not_ours()


def write_time(time: datetime, key: str | int) -> str:
    """The cursor behind what is of this time and key."""
    return urlsafe_b64encode(f"{time.isoformat()} {key}".encode()).decode()


def _not_ours() -> Invalid:
    return Invalid("The cursor is not one of ours.", field="cursor")
