"""Cursors: where a page ended, and what its query had settled on.

Relative times and the bucket that `points` chose stay what they were on the first page, so the
pages of one query fit together however long they are apart.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from zlib import crc32

import msgspec

from paqett.errors import Invalid
from paqett.readings.buckets import from_us, to_us
from paqett.readings.query import Position


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Times in µs since 1970; `asked` is a fingerprint of the query's parameters."""

    asked: int
    from_us: int
    to_us: int
    bucket: str | None
    time_us: int
    series_id: int

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The range of the first page."""
        return from_us(self.from_us), from_us(self.to_us)

    @property
    def position(self) -> Position:
        """The last row that has been shown."""
        return Position(from_us(self.time_us), self.series_id)


def fingerprint(*parameters: object) -> int:
    """The same for the same parameters."""
    return crc32(msgspec.json.encode(parameters))


def write(
    asked: int, from_: datetime, to: datetime, bucket: str | None, last: Position
) -> str:  # fmt: skip
    """The cursor of the page that follows `last`."""
    cursor = Cursor(asked, to_us(from_), to_us(to), bucket, to_us(last.time), last.series_id)
    return urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def read(text: str, asked: int) -> Cursor:
    """Raises `Invalid` for what `write` has not written, and for another query's cursor."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        cursor = msgspec.json.decode(urlsafe_b64decode(padded), type=Cursor)
        _ = (cursor.span, cursor.position)
    except (ValueError, OverflowError):
        raise Invalid("The cursor is not one of ours.", field="cursor") from None
    if cursor.asked != asked:
        detail = "The cursor belongs to another query: send the same parameters with it."
        raise Invalid(detail, field="cursor")
    return cursor
