"""Rows for PostgreSQL's binary COPY, assembled in one buffer.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format). A pre-assembled
buffer beats psycopg's `write_row` several times over.
"""

import struct
from typing import Final

NumberRow = tuple[int, int, int, float]  # series id, time in µs since 1970, account id, value
TextRow = tuple[int, int, int, str]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_EPOCH_US: Final = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
_number = struct.Struct("!hiqiiiiid").pack
_text_head = struct.Struct("!hiqiiiii").pack


def numbers(rows: list[NumberRow]) -> bytes:
    """The COPY data of `(time, account_id, series_id, value float8)`."""
    pack, epoch = _number, _EPOCH_US
    body = [
        pack(4, 8, time_us - epoch, 4, account, 4, series, 8, value)
        for series, time_us, account, value in rows
    ]
    return b"".join((_HEADER, *body, _TRAILER))


def texts(rows: list[TextRow]) -> bytes:
    """The COPY data of `(time, account_id, series_id, value text)`."""
    parts = [_HEADER]
    for series, time_us, account, value in rows:
        data = value.encode()
        parts.append(_text_head(4, 8, time_us - _EPOCH_US, 4, account, 4, series, len(data)))
        parts.append(data)
    parts.append(_TRAILER)
    return b"".join(parts)
