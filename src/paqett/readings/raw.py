"""Readings as they were sent, ordered by time and then by series."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import tuple_row

from paqett.accounts import Account
from paqett.db import Connection
from paqett.readings.buckets import US, from_us, stretches, to_us
from paqett.readings.packed import Packed, join, unpack
from paqett.readings.query import Page, Position, Query
from paqett.readings.source import Source
from paqett.sqlfiles import tier_query

# a page is looked for in stretches, the first as long as a page is if each series sends a reading
# in so many seconds: few chunks to plan for, and few readings of each series that do not fit
_GUESSED_INTERVAL = timedelta(seconds=10)


async def read_metric(
    conn: Connection, account: Account, query: Query, now: datetime, limit: int,
    after: Position | None,
) -> Page | None:  # fmt: skip
    """The page of one metric of one device by one statement, which is what is asked most.

    None where there is more to it, whatever that is: several series, texts, a move, a range that
    is looked at in stretches, or nothing found.
    """
    from_ = max(query.from_, account.oldest(now))
    one = len(query.devices) == len(query.metrics or ()) == 1 and query.devices[0].isprintable()
    if not one or query.packed or query.to - from_ > _GUESSED_INTERVAL * limit:
        return None
    device, metric = query.devices[0], (query.metrics or [""])[0]
    values = {
        "account": account.id, "tier": account.tier, "device": device, "metric": metric,
        "from": from_, "to": query.to, "limit": limit + 1,
        **behind(after),
    }  # fmt: skip
    name = "read_metric_desc" if query.descending else "read_metric_asc"
    async with conn.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(tier_query(name, account.tier), values)
        found = await cursor.fetchall()
    if not found:
        return None
    rows = [
        (time, device, metric, value_of(kind, value, None))
        for time, _, value, kind in found[:limit]
    ]
    last = Position(rows[-1][0], found[0][1]) if len(found) > limit else None
    return Page(rows, last, from_)


async def read_raw(source: Source, query: Query, limit: int, after: Position | None) -> Page:
    """A page of at most `limit` readings behind `after`."""
    if query.packed and not query.descending and _all_numbers(source):
        page = await _read_packed(source, query, limit, after)
        if page is not None:
            return page
    values = _values(source, after)
    form = "raw" if values["texts"] else "numbers"
    name = f"read_{form}_desc" if query.descending else f"read_{form}_asc"
    found: list[tuple[Any, ...]] = []
    wanted = limit + 1
    for stretch in _stretches(source, query, limit, after):
        span = {"from": from_us(stretch.start), "to": from_us(stretch.stop), "limit": wanted}
        rows = await source.rows(name, {**values, **span})
        found += rows
        wanted -= len(rows)
        if wanted <= 0:
            break
    kept = (list(_identities(found)) if values["texts"] else found)[:limit]
    last = Position(*kept[-1][:2]) if wanted <= 0 else None
    return Page(_shown(source, kept), last, max(query.from_, source.oldest))


def _all_numbers(source: Source) -> bool:
    return all(one.kind == "number" and not one.mixed for one in source.series.values())


async def _read_packed(
    source: Source, query: Query, limit: int, after: Position | None
) -> Page | None:
    """The same by the column; None while readings stand in two tiers."""
    values = _values(source, after)
    parts: list[Packed] = []
    wanted = limit + 1
    for stretch in _stretches(source, query, limit, after):
        span = {"from": from_us(stretch.start), "to": from_us(stretch.stop), "limit": wanted}
        found = await source.arrays("read_number_columns", {**values, **span})
        if source.moving:
            return None
        if found is not None:
            parts.append(unpack(found))
            wanted -= len(parts[-1])
        if wanted <= 0:
            break
    from_ = max(query.from_, source.oldest)
    if not parts:
        return Page([], None, from_)
    packed = join(parts).first(limit)
    last = None
    if wanted <= 0:
        time: datetime = packed.times[-1].item()
        last = Position(time.replace(tzinfo=UTC), int(packed.series[-1]))
    labels = {one.id: (one.device, one.metric) for one in source.series.values()}
    return Page([], last, from_, packed=packed, labels=labels)


def _values(source: Source, after: Position | None) -> dict[str, Any]:
    series = source.series.values()
    return {
        "series": [one.id for one in series if one.has_numbers],
        "texts": [one.id for one in series if one.has_texts],
        **behind(after),
    }


def _stretches(source: Source, query: Query, limit: int, after: Position | None) -> Iterator[range]:
    """Stretches of time in µs to look at one by one, until the page is full."""
    start, end = max(query.from_, source.oldest), query.to
    if after is not None and query.descending:
        end = min(end, after.time + US)
    elif after is not None:
        start = max(start, after.time)
    whole = range(to_us(start), to_us(end))
    if not source.series:
        return iter(())
    lasting = query.pace or _GUESSED_INTERVAL * limit / len(source.series)
    return stretches(whole, lasting // US, descending=query.descending)


def _identities(rows: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Each (time, series) once: a mixed series may hold it as a number and as a text."""
    last = None
    for row in rows:
        if row[:2] != last:
            last = row[:2]
            yield row


def _shown(source: Source, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """With names instead of numbers."""
    named = {one.id: (one.device, one.metric, one.kind) for one in source.series.values()}
    shown = []
    for time, series_id, number, text in rows:
        device, metric, kind = named[series_id]
        shown.append((time, device, metric, value_of(kind, number, text)))
    return shown


def behind(after: Position | None) -> dict[str, Any]:
    """Where a page begins, as its query takes it."""
    return {
        "after_time": after.time if after else None,
        "after_series": after.series_id if after else None,
    }


def value_of(kind: str, number: float | None, text: str | None) -> Any:
    """By where it stands: a mixed series has numbers and texts."""
    if number is None:
        return text
    return number != 0 if kind == "boolean" else number
