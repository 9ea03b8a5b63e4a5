"""The readings of an archive, in pieces: by stretches of time that a table's chunks cover, in each
series by series and by time. A piece is some 20,000 readings, however many there are.
"""

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from psycopg.rows import tuple_row

from paqett.errors import NotFound, PaqettError
from paqett.exports import archive
from paqett.exports.contents import Transaction
from paqett.exports.records import Form
from paqett.readings.packed import Packed, unpack, written
from paqett.sqlfiles import ReadingForm, array, query, readings_table, tier_query

_NUMBERS_AT_ONCE, _TEXTS_AT_ONCE, _SERIES_AT_ONCE = 20_000, 10_000, 500
_US = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode


class OutOfOrder(PaqettError):
    """The database gave readings in another order than they are written in."""


class Series(msgspec.Struct, frozen=True):
    """A metric of a device; where it is `mixed`, readings stand in both tables of a tier."""

    id: int
    device: str
    metric: str
    kind: str
    mixed: bool


class Stretch(msgspec.Struct, frozen=True):
    """`[start, end)` in one tier; `share` of the whole lies behind its end, 0 to 1."""

    tier: str
    start: datetime
    end: datetime
    share: float


class Piece(msgspec.Struct, frozen=True):
    """Some readings; `make` writes them as lines, and takes its time."""

    make: Callable[[], bytes]
    rows: int
    share: float
    last_series: int
    last_time: datetime


class Readings:
    """An account's readings in the tiers they stand in, each from its oldest readable one on."""

    def __init__(
        self, begin: Transaction, account_id: int, form: Form, state: dict[str, Any],
        series: list[Series],
    ) -> None:  # fmt: skip
        self._begin, self._account, self._form = begin, account_id, form
        self.email: str = state["email"]
        self._oldest = _oldest(state)
        self._series = {one.id: one for one in series}
        self._flags = frozenset(one.id for one in series if one.kind == "boolean")
        self._middles = {one.id: _middle(form, one) for one in series}

    async def numbers(self) -> AsyncIterator[Piece]:
        """Numbers and booleans."""
        series = [one.id for one in self._series.values() if one.kind != "text" or one.mixed]
        async for stretch in self._stretches("numbers"):
            async for piece in self._pieces(stretch, series, _NUMBERS_AT_ONCE, self._numbers):
                yield piece

    async def texts(self) -> AsyncIterator[Piece]:
        """Text values."""
        series = [one.id for one in self._series.values() if one.kind == "text" or one.mixed]
        async for stretch in self._stretches("texts"):
            async for piece in self._pieces(stretch, series, _TEXTS_AT_ONCE, self._texts):
                yield piece

    async def _stretches(self, form: ReadingForm) -> AsyncIterator[Stretch]:
        """Where a table has chunks, oldest first; while a move is open, in both tiers."""
        found = []
        async with self._begin() as conn:
            for tier, oldest in self._oldest.items():
                values = {"table": readings_table(tier, form)}
                for row in await (await conn.execute(query("unscoped_chunks"), values)).fetchall():
                    if row["to"] > oldest:
                        start = max(row["from"], oldest)
                        found.append((start, row["to"], tier))
        for number, (start, end, tier) in enumerate(sorted(found), 1):
            yield Stretch(tier, start, end, number / len(found))

    async def _pieces(
        self, stretch: Stretch, series: list[int], limit: int,
        read: Callable[[Stretch, dict[str, Any]], Any],
    ) -> AsyncIterator[Piece]:  # fmt: skip
        left, first, asked = series, stretch.start, _SERIES_AT_ONCE
        while left:
            values = {
                "account": self._account, "series": array(left[:asked]), "first": first,
                "from": stretch.start, "to": stretch.end, "limit": limit,
            }  # fmt: skip
            piece: Piece | None = await read(stretch, values)
            if piece is not None:
                yield piece
            if piece is not None and piece.rows == limit:
                left = left[left.index(piece.last_series) :]
                first = piece.last_time + _US
            else:  # there is no more of those; where they have little, more of them at once
                left, first, asked = left[asked:], stretch.start, 2 * asked

    async def _numbers(self, stretch: Stretch, values: dict[str, Any]) -> Piece | None:
        statement = tier_query("archive_readings", stretch.tier)
        async with self._begin() as conn, conn.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(statement, values)
            result = cursor.pgresult
            arrays = [result.get_value(0, column) for column in range(3)] if result else []
        if not arrays or any(array is None for array in arrays):
            return None
        packed = unpack([bytes(array) for array in arrays if array is not None])
        _check_order(packed.series, packed.times)
        last: datetime = packed.times[-1].item()
        return Piece(
            lambda: self._number_lines(packed), len(packed), stretch.share,
            int(packed.series[-1]), last.replace(tzinfo=stretch.start.tzinfo),
        )  # fmt: skip

    def _number_lines(self, packed: Packed) -> bytes:
        head, tail = ('{"time":"', "}") if self._form == "ndjson" else ("", "")
        return written(packed, self._middles, head, tail, self._flags)

    async def _texts(self, stretch: Stretch, values: dict[str, Any]) -> Piece | None:
        statement = tier_query("archive_readings", stretch.tier, form="texts")
        async with self._begin() as conn, conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement, values)
            row = await cursor.fetchone()
        if row is None or row[0] is None:
            return None
        times, series, texts = row
        _check_order(np.array(series), np.array([time.timestamp() for time in times]))
        return Piece(
            lambda: self._text_lines(times, series, texts), len(times), stretch.share, series[-1],
            times[-1],
        )  # fmt: skip

    def _text_lines(self, times: list[datetime], series: list[int], texts: list[str]) -> bytes:
        named = (self._series[one] for one in series)
        return archive.lines(
            self._form,
            (
                {"time": time, "device": one.device, "metric": one.metric, "value": text}
                for time, one, text in zip(times, named, texts, strict=True)
            ),
        )


async def look(begin: Transaction, account_id: int, form: Form, now: datetime) -> Readings:
    """The account's readings as of `now`. Raises `NotFound` once it is erased."""
    values = {"account": account_id, "now": now}
    async with begin() as conn:
        state = await (await conn.execute(query("archive_state"), values)).fetchone()
        found = await (await conn.execute(query("archive_series"), values)).fetchall()
    if state is None:
        raise NotFound("There is no such account.")
    series = [msgspec.convert(row, Series) for row in found]
    return Readings(begin, account_id, form, state, series)


def _oldest(state: dict[str, Any]) -> dict[str, datetime]:
    """By tier. While a move is open `readable_from` holds for the one that is left: what comes late
    to the new one may be older."""
    expired: datetime = state["expired"]
    kept = max(expired, state["readable_from"])
    if state["moving_from"] is None:
        return {state["tier"]: kept}
    return {state["tier"]: expired, state["moving_from"]: kept}


def _middle(form: Form, series: Series) -> str:
    """What stands between a reading's time and its value."""
    if form == "csv":
        return f"Z,{archive.csv_line([series.device, series.metric]).decode()[:-1]},"
    device, metric = _encode(series.device).decode(), _encode(series.metric).decode()
    return f'Z","device":{device},"metric":{metric},"value":'


def _check_order(series: Any, times: Any) -> None:
    """By series as they were given, in each by time: what goes on behind a piece relies on it."""
    later = (series[1:] > series[:-1]) | (series[1:] == series[:-1]) & (times[1:] > times[:-1])
    if not later.all():
        raise OutOfOrder("readings came in another order than they were asked for")
