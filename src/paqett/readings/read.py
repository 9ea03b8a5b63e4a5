"""Readings out of the tiers, a page at a time: raw, in buckets, latest; never beyond retention.

While a move is open a reading stands in one of two tiers, and every query takes both.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.readings.aggregate import read_buckets
from paqett.readings.buckets import choose
from paqett.readings.query import Page, Position, Query
from paqett.readings.raw import read_metric, read_raw, value_of
from paqett.readings.source import Series, Source, open_source

# `latest` looks here first: of few chunks a plan is made quickly and begun again for each series
_RECENTLY = timedelta(hours=6)
AHEAD = timedelta(days=1)
"""Past the furthest a reading may lie ahead, whatever the clocks of our own machines."""


class Latest(msgspec.Struct, frozen=True):
    """The newest reading of one series."""

    device: str
    metric: str
    kind: str
    unit: str | None
    time: datetime
    value: float | bool | str


async def read_page(
    conn: Connection, account: Account, query: Query, now: datetime, limit: int,
    after: Position | None = None,
) -> Page:  # fmt: skip
    """A page of at most `limit` rows behind `after`, as of `now`.

    Where the query leaves the bucket to us, the page says which it is. Raises `NotFound` for a
    device that is not the account's, `Invalid` for what cannot be computed.
    """
    if query.bucket is None and query.points is None:
        page = await read_metric(conn, account, query, now, limit, after)
        if page is not None:
            return page
    source = await open_source(conn, account, query.devices, query.metrics, now)
    if query.points is not None:
        from_ = max(query.from_, source.oldest)
        bucket = choose(query.points, from_, query.to, query.tz)
        return await read_buckets(source, query, bucket, limit, after)
    if query.bucket is not None:
        return await read_buckets(source, query, query.bucket, limit, after)
    return await read_raw(source, query, limit, after)


async def latest(
    conn: Connection, account: Account, device_ids: list[str], now: datetime
) -> list[Latest]:
    """The newest reading of every series of these devices; series without one are left out.

    Raises `NotFound` for a device that is not the account's.
    """
    source = await open_source(conn, account, device_ids, None, now)
    newest: dict[int, tuple[Any, ...]] = {}
    for from_ in (now - _RECENTLY, datetime.min.replace(tzinfo=UTC)):
        missing = [one for one in source.series.values() if one.id not in newest]
        if missing:
            newest |= await _newest(source, missing, from_, now)
    return [_latest(one, *newest[one.id][1:]) for one in source.series.values() if one.id in newest]


async def _newest(
    source: Source, series: list[Series], from_: datetime, now: datetime
) -> dict[int, tuple[Any, ...]]:
    """The newest row of each series since `from_`, by the series' id."""
    values = {
        "series": [one.id for one in series if one.has_numbers],
        "texts": [one.id for one in series if one.has_texts],
        "from": from_,
        "to": now + AHEAD,
    }
    if not values["texts"]:
        return {row[0]: row for row in await source.rows("read_latest_numbers", values)}
    # of one time in both tables the number counts: the last to be put in
    rows = sorted(await source.rows("read_latest", values), key=lambda r: (r[1], r[2] is not None))
    return {row[0]: row for row in rows}


def _latest(series: Series, time: datetime, number: float | None, text: str | None) -> Latest:
    value = value_of(series.kind, number, text)
    return Latest(series.device, series.metric, series.kind, series.unit, time, value)
