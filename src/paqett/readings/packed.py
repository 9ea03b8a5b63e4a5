"""Readings by the column, as arrays of numpy: what a long export is made of.

PostgreSQL sends an array in binary as a head of 20 bytes and then each element behind its length
(`array_send`); where none is null all are equally long, and numpy reads them at once.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_HEAD: Final = 20
_EPOCH: Final = np.datetime64("2000-01-01", "us")  # PostgreSQL counts from here, in µs
_TIME: Final = np.dtype([("bytes", ">i4"), ("value", ">i8")])
_ID: Final = np.dtype([("bytes", ">i4"), ("value", ">i4")])
_VALUE: Final = np.dtype([("bytes", ">i4"), ("value", ">f8")])
_encode: Final = msgspec.json.Encoder().encode


class Packed(msgspec.Struct, frozen=True):
    """Numbers in the order of (time, series); parallel arrays. `times` are UTC."""

    times: NDArray[np.datetime64]
    series: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.series)

    def first(self, number: int) -> "Packed":
        """The first `number` of them."""
        return Packed(self.times[:number], self.series[:number], self.values[:number])


def unpack(arrays: list[bytes]) -> Packed:
    """A timestamptz[], an int4[] and a float8[], none with nulls."""
    times, series, values = arrays
    return Packed(
        _EPOCH + _elements(times, _TIME).astype(np.int64).astype("timedelta64[us]"),
        _elements(series, _ID).astype(np.int64),
        _elements(values, _VALUE).astype(np.float64),
    )


def _elements(array: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(array, kind, offset=_HEAD)["value"]


def join(parts: list[Packed]) -> Packed:
    """One after the other."""
    return Packed(
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def written(
    packed: Packed, middles: Mapping[int, str], head: str = "", tail: str = "",
    flags: frozenset[int] = frozenset(),
) -> bytes:  # fmt: skip
    """A line for each: `head`, its time without a zone, its series' middle, its value, `tail`.

    The middle begins with the `Z` that ends the time. `flags` are series of true and false.
    """
    if not len(packed):
        return b""
    # datetimes without a zone end where their Z follows
    times = _encode(packed.times.tolist()).decode()[2:-2].split('","')
    values = _encode(packed.values.tolist()).decode()[1:-1].split(",")
    series = packed.series.tolist()
    if flags:
        values = [
            ("true" if value != "0.0" else "false") if one in flags else value
            for one, value in zip(series, values, strict=True)
        ]
    named = map(middles.__getitem__, series)
    lines = map("".join, zip(times, named, values, strict=True))
    return (head + f"{tail}\n{head}".join(lines) + f"{tail}\n").encode()
