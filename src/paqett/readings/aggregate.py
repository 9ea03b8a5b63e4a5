"""Readings in buckets: a row for each bucket and series, ordered by bucket and then by series."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from heapq import merge
from math import isfinite
from typing import Any

import msgspec

from paqett.errors import Invalid
from paqett.readings.buckets import US, Bucket, stretches
from paqett.readings.query import TEXT_AGGREGATES, Page, Position, Query
from paqett.readings.raw import behind, value_of
from paqett.readings.source import Series, Source, beyond_double

# what one answer looks at: beyond that a page ends early, before it takes too long
_READINGS = 5_000_000
_GUESSED_INTERVAL = timedelta(seconds=10)

Row = tuple[Any, ...]
Key = tuple[datetime, int]
# where each aggregate stands in a row of the database: time, series, then these
_NUMBERS = ("count", "sum", "min", "max", "first", "last", "p50", "p95")
_EMPTY = 2
_PLACES = {name: place for place, name in enumerate(_NUMBERS, _EMPTY)}
_OF_THE_KIND = ("min", "max", "first", "last")
_SUMMED = {"count", "sum", "avg"}


class _Asked(msgspec.Struct, frozen=True):
    """A bucketed query, the series it is about and what may be read of it."""

    source: Source
    query: Query
    bucket: Bucket
    series: list[Series]
    from_: datetime
    to: datetime

    @property
    def whole(self) -> range:
        """The numbers of all buckets that are asked for."""
        return self.bucket.covering(self.from_, self.to)

    def first(self, wanted: int, series: int) -> int:
        """How many buckets to begin with: as many as hold `wanted` rows, or too many readings."""
        if not self.whole:
            return 1
        start = self.whole.start
        lasting = self.bucket.start(start + 1) - self.bucket.start(start)
        most = _READINGS * _GUESSED_INTERVAL // (max(lasting, US) * series)
        return max(2, min(wanted // series + 2, most))


async def read_buckets(
    source: Source, query: Query, bucket: Bucket, limit: int, after: Position | None
) -> Page:
    """A page of at most `limit` rows of such buckets behind `after`.

    It may end before `limit` where it holds very many readings. Raises `Invalid` for a named text
    metric of which only aggregates of numbers are asked.
    """
    from_ = max(query.from_, source.oldest)
    asked = _Asked(source, query, bucket, _aggregated(source, query), from_, query.to)
    finding = _found if query.fill == "none" else _filled
    rows, more = await finding(asked, limit + 1, after)
    page, show = rows[:limit], _shower(asked)
    last = Position(*page[-1][:2]) if more or len(rows) > limit else None
    return Page([show(row) for row in page], last, from_, bucket)


def _aggregated(source: Source, query: Query) -> list[Series]:
    """Those series of which something is asked that they have."""
    kept = []
    for series in source.series.values():
        if series.kind != "text" or any(name in TEXT_AGGREGATES for name in query.aggregates):
            kept.append(series)
        elif query.metrics is not None:
            detail = f"{series.metric} is text, so agg is one of {', '.join(TEXT_AGGREGATES)}."
            raise Invalid(detail, field="agg")
    return sorted(kept, key=lambda series: series.id)


def _remaining(asked: _Asked, after: Position | None) -> range:
    whole = asked.whole
    if after is None:
        return whole
    number = asked.bucket.number(after.time)
    if asked.query.descending:
        return range(whole.start, min(whole.stop, number + 1))
    return range(max(whole.start, number), whole.stop)


async def _found(
    asked: _Asked, wanted: int, after: Position | None
) -> tuple[list[Row], bool]:  # fmt: skip
    """The first `wanted` rows there are, or fewer and whether there may be more."""
    rows: list[Row] = []
    if not asked.series:
        return rows, False
    first, descending = asked.first(wanted, len(asked.series)), asked.query.descending
    for numbers in stretches(_remaining(asked, after), first, descending=descending):
        rows += await _stretch(asked, numbers, asked.series, wanted - len(rows), after)
        if len(rows) >= wanted or sum(row[2] for row in rows) >= _READINGS:
            return rows, True
    return rows, False


async def _stretch(
    asked: _Asked, numbers: range, series: Iterable[Series], limit: int, after: Position | None
) -> list[Row]:
    """What is stored in the buckets `numbers`, in the query's order."""
    query, bucket = asked.query, asked.bucket
    wanted = set(query.aggregates)
    values = {
        "width": bucket.count * US if bucket.fixed else None,
        "origin": bucket.origin,
        "starts": None if bucket.fixed else bucket.starts(numbers.start, numbers.stop),
        "from": max(asked.from_, bucket.start(numbers.start)),
        "to": min(asked.to, bucket.start(numbers.stop)),
        **behind(after),
        "descending": query.descending,
        "limit": limit,
        "sums": not wanted.isdisjoint(("avg", "sum")),
        "extremes": not wanted.isdisjoint(("min", "max")),
        "ends": not wanted.isdisjoint(("first", "last")),
    }
    parts = []
    for name, ids in (
        (_query(wanted), _ids(series, text=False)),
        ("read_text_buckets", _ids(series, text=True)),
    ):
        if ids:
            parts.append(await asked.source.rows(name, {**values, "series": ids}))
    if len(parts) == 1:
        return parts[0]
    rows = merge(*parts, key=_key, reverse=query.descending)
    return list(rows)[:limit]


def _query(wanted: set[str]) -> str:
    """The one that computes least."""
    if wanted <= _SUMMED:
        return "read_bucket_sums"
    return "read_buckets" if wanted.isdisjoint(("p50", "p95")) else "read_sorted_buckets"


def _ids(series: Iterable[Series], *, text: bool) -> list[int]:
    return [one.id for one in series if (one.kind == "text") == text]


def _key(row: Row) -> Key:
    return row[0], row[1]


async def _filled(
    asked: _Asked, wanted: int, after: Position | None
) -> tuple[list[Row], bool]:  # fmt: skip
    """The first rows of a grid, `wanted` of them or fewer, and whether there are more.

    It has each bucket of each series that has a reading in the range.
    """
    present = set(await _newest(asked, asked.from_, asked.to))
    series = [one for one in asked.series if one.id in present]
    remaining = _remaining(asked, after)
    if not series or not remaining:
        return [], False
    number = asked.first(wanted, len(series))  # at least two: the first may be all but over
    numbers = next(stretches(remaining, number, descending=asked.query.descending))
    most = len(numbers) * len(series)
    stored = {_key(row): row for row in await _stretch(asked, numbers, series, most, None)}
    carried = {}
    if asked.query.fill == "previous":
        lacking = [
            one for one in series if (asked.bucket.start(numbers.start), one.id) not in stored
        ]
        carried = await _carried(asked, numbers.start, lacking)
    rows = _grid(asked, numbers, series, stored, carried)
    return _behind(asked, rows, after)[:wanted], len(numbers) < len(remaining)


def _grid(
    asked: _Asked, numbers: range, series: list[Series], stored: dict[Key, Row],
    carried: dict[int, Row],
) -> list[Row]:  # fmt: skip
    """In ascending order; what is not stored is None, or what came before it."""
    rows = []
    for time in asked.bucket.starts(numbers.start, numbers.stop):
        for one in series:
            row = stored.get((time, one.id))
            if row is None:
                row = (time, one.id, *carried.get(one.id, ())[2:])
            elif asked.query.fill == "previous":
                carried[one.id] = row
            rows.append(row)
    return rows


def _behind(asked: _Asked, rows: list[Row], after: Position | None) -> list[Row]:
    """In the query's order, without what an earlier page has shown."""
    descending = asked.query.descending
    if descending:
        rows.reverse()
    if after is None:
        return rows
    seen = (after.time, after.series_id)
    return [row for row in rows if (_key(row) < seen if descending else _key(row) > seen)]


async def _newest(asked: _Asked, from_: datetime, to: datetime) -> dict[int, datetime]:
    """When each series was last heard of in `[from_, to)`."""
    values = {
        "series": _ids(asked.series, text=False),
        "texts": _ids(asked.series, text=True),
        "from": from_,
        "to": to,
    }
    return {row[0]: row[1] for row in await asked.source.rows("read_latest", values)}


async def _carried(asked: _Asked, number: int, lacking: list[Series]) -> dict[int, Row]:
    """The rows of these series that come last before the bucket `number`, within the range."""
    start = asked.bucket.start(number)
    if not lacking or start <= asked.from_:
        return {}
    by_bucket: dict[int, list[Series]] = {}
    newest = await _newest(asked, asked.from_, start)
    for one in lacking:
        if one.id in newest:
            by_bucket.setdefault(asked.bucket.number(newest[one.id]), []).append(one)
    found: dict[int, Row] = {}
    for before, series in by_bucket.items():
        rows = await _stretch(asked, range(before, before + 1), series, len(series), None)
        found |= {row[1]: row for row in rows}
    return found


def _shower(asked: _Asked) -> Callable[[Row], Row]:
    """How a row of the database is shown: names instead of numbers, and what was asked alone."""
    names = asked.query.aggregates
    repeated = len(names) == 1
    series = {one.id: one for one in asked.series}
    total, count = _PLACES["sum"], _PLACES["count"]

    def show_average(row: Row) -> Row:
        of = series[row[1]]
        average = row[total] / row[count] if len(row) > _EMPTY else None
        return (row[0], of.device, of.metric, average, average)

    def show(row: Row) -> Row:
        of = series[row[1]]
        values = [_aggregate(of.kind, row, name) for name in names]
        if repeated:
            values *= 2
        return (row[0], of.device, of.metric, *values)

    return show_average if names == ("avg",) else show  # what is asked most, in a third of the time


def _aggregate(kind: str, row: Row, name: str) -> Any:
    """One of a row's aggregates; an empty row has none, a text no more than three."""
    if name == "avg":
        total = row[_PLACES["sum"]] if len(row) > _EMPTY else None
        return None if total is None else total / row[_PLACES["count"]]
    place = _PLACES[name]
    value = row[place] if place < len(row) else None
    if kind == "boolean" and name in _OF_THE_KIND:
        return value_of("boolean", value, None)
    if type(value) is float and not isfinite(value):
        raise beyond_double()
    return value
