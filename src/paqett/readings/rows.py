"""Columns become rows in the order of their identity, as PostgreSQL's binary COPY reads them.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format). Sorting, looking for
equal neighbours and packing are numpy's: ten times faster than tuples and `struct`.
"""

import struct
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from paqett.readings.plain import Columns

Ints = NDArray[np.int64]
TextRow = tuple[int, int, int, str]  # series id, time in µs since 1970, place in the batch, value

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH_US: Final = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
_NUMBER: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("time_bytes", ">i4"), ("time", ">i8"),
        ("account_bytes", ">i4"), ("account", ">i4"),
        ("series_bytes", ">i4"), ("series", ">i4"),
        ("value_bytes", ">i4"), ("value", ">f8"),
    ]
)  # fmt: skip
_text_head = struct.Struct("!hiqiiiii").pack


class Numbers(msgspec.Struct, frozen=True):
    """Rows sorted by (series, time), each identity once; parallel arrays.

    `numbers` are the places of the rows' messages in the batch. `again` are the (message, time) of
    rows whose identity an earlier message of the batch has.
    """

    series: Ints
    times: Ints
    values: NDArray[np.float64]
    numbers: Ints
    again: list[tuple[int, int]]


def sort_numbers(columns: Columns) -> Numbers:
    """The rows of `columns`: of equal identities the one that came first stays."""
    count = len(columns.series)
    series = np.fromiter(columns.series, np.int64, count)
    times = np.fromiter(columns.times, np.int64, count)
    numbers = np.fromiter(columns.numbers, np.int64, count)
    values = np.fromiter(columns.values, np.float64, count)
    order = _order(series, times)
    series, times, numbers, values = series[order], times[order], numbers[order], values[order]
    same = np.zeros(count, bool)
    same[1:] = (series[1:] == series[:-1]) & (times[1:] == times[:-1])
    if not same.any():
        return Numbers(series, times, values, numbers, [])
    again = list(zip(numbers[same].tolist(), times[same].tolist(), strict=True))
    kept = ~same
    return Numbers(series[kept], times[kept], values[kept], numbers[kept], again)


def _order(series: Ints, times: Ints) -> NDArray[np.intp]:
    """Where the rows go; equal ones stay in the order they came.

    One key of both columns sorts three times as fast, where they fit into it and none are equal.
    """
    if not len(series):
        return np.zeros(0, np.intp)
    first, since = int(series.min()), int(times.min())
    bits = (int(times.max()) - since).bit_length()
    if (int(series.max()) - first).bit_length() + bits < 63:
        keys = (series - first) << bits | times - since
        order = np.argsort(keys)
        keys = keys[order]
        if not (keys[1:] == keys[:-1]).any():
            return order
    return np.lexsort((times, series))


def pack_numbers(series: Ints, times: Ints, accounts: Ints, values: NDArray[Any]) -> bytes:
    """Rows `(time, account_id, series_id, value float8)` between `HEADER` and `TRAILER`.

    `times` are µs since 1970.
    """
    rows = np.empty(len(series), _NUMBER)
    rows["fields"] = 4
    rows["time_bytes"] = rows["value_bytes"] = 8
    rows["account_bytes"] = rows["series_bytes"] = 4
    rows["time"] = times - _EPOCH_US
    rows["account"] = accounts
    rows["series"] = series
    rows["value"] = values
    return rows.tobytes()


def sort_texts(rows: list[TextRow]) -> tuple[list[TextRow], list[tuple[int, int]]]:
    """The rows in order, each identity once, and the (message, time) of those left out."""
    kept: list[TextRow] = []
    again = []
    for row in sorted(rows, key=lambda row: row[:2]):
        if kept and kept[-1][:2] == row[:2]:
            again.append((row[2], row[1]))
        else:
            kept.append(row)
    return kept, again


def pack_texts(rows: list[TextRow], accounts: list[int]) -> bytes:
    """Rows `(time, account_id, series_id, value text)`; `accounts` are by message."""
    parts = []
    for series, time_us, number, value in rows:
        data = value.encode()
        parts.append(
            _text_head(4, 8, time_us - _EPOCH_US, 4, accounts[number], 4, series, len(data))
        )
        parts.append(data)
    return b"".join(parts)
