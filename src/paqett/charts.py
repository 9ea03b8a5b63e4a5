"""Charts: series as columns of time and value, never more points than a screen has use for.

The bucket follows from the number of points asked for, so a chart of 90 days of one reading a
second is as small as one of an hour, and whoever zooms asks again and gets a shorter bucket.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.readings import read
from paqett.readings.buckets import Bucket, to_us
from paqett.readings.query import Query
from paqett.sqlfiles import query as sql

MOST_SERIES = 8
MOST_POINTS = 2000
"""Of one series on one chart."""
_MOST_KNOWN = 2000
_GAP = 3  # so many times the usual distance between two points is a gap


class Series(msgspec.Struct, frozen=True):
    """A metric of a device; `name` is what the device is called."""

    device: str
    name: str
    metric: str
    kind: str
    label: str | None
    unit: str | None

    @property
    def key(self) -> str:
        """As addresses name it: `device:metric`."""
        return f"{self.device}:{self.metric}"

    @property
    def title(self) -> str:
        """What the metric is called."""
        return self.label or self.metric


class Line(msgspec.Struct, frozen=True):
    """A series as it is drawn: times in ms since 1970; a value of None is a gap."""

    device: str
    name: str
    metric: str
    title: str
    unit: str | None
    kind: str
    times: list[int]
    values: list[float | None]


class Chart(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Lines of `[from, to)`, in ms since 1970 and clamped to what may be read."""

    lines: list[Line]
    from_: int
    to: int
    bucket: str | None


async def known(
    conn: Connection, account: Account, devices: list[str] | None = None
) -> list[Series]:
    """The metrics of some devices of the account, or of all: at most 2,000, by device."""
    values = {"account": account.id, "devices": devices, "limit": _MOST_KNOWN}
    rows = await (await conn.execute(sql("chart_series"), values)).fetchall()
    return [msgspec.convert(row, Series) for row in rows]


def drawable(series: list[Series]) -> list[Series]:
    """Those that are numbers or booleans."""
    return [one for one in series if one.kind != "text"]


def bounded(query: Query, points: int) -> Query:
    """The query with no more than `points` points a series: its own bucket where that is enough."""
    points = min(points, MOST_POINTS)
    bucket = query.bucket
    if bucket is not None and len(bucket.covering(query.from_, query.to)) <= MOST_POINTS:
        return query
    return msgspec.structs.replace(query, bucket=None, points=points)


async def draw(
    conn: Connection, account: Account, series: list[Series], query: Query, now: datetime
) -> Chart:
    """These series as `query` asks, which has been `bounded`. Raises as `read.read_page` does."""
    rows: dict[tuple[str, str], list[tuple[datetime, Any]]] = {}
    from_, bucket = query.from_, query.bucket
    for device in dict.fromkeys(one.device for one in series):
        metrics = [one.metric for one in series if one.device == device]
        asked = msgspec.structs.replace(
            query, devices=[device], metrics=metrics, bucket=bucket,
            points=None if bucket else query.points,
        )  # fmt: skip
        after, more = None, True
        while more:
            page = await read.read_page(conn, account, asked, now, MOST_POINTS * MOST_SERIES, after)
            for row in page.rows:
                rows.setdefault((row[1], row[2]), []).append((row[0], row[-1]))
            from_, bucket, after = page.from_, page.bucket, page.last
            asked = msgspec.structs.replace(asked, bucket=bucket, points=None)
            more = after is not None
    lines = [_line(one, rows.get((one.device, one.metric), []), bucket) for one in series]
    return Chart(lines, _ms(from_), _ms(max(from_, query.to)), bucket.text if bucket else None)


def _ms(time: datetime) -> int:
    return to_us(time) // 1000


def _line(series: Series, rows: list[tuple[datetime, Any]], bucket: Bucket | None) -> Line:
    times = [_ms(time) for time, _ in rows]
    values = [None if value is None else float(value) for _, value in rows]
    times, values = _with_gaps(times, values, _step(bucket))
    return Line(
        series.device, series.name, series.metric, series.title, series.unit, series.kind,
        times, values,
    )  # fmt: skip


def _step(bucket: Bucket | None) -> int:
    """How far apart two points are at least, in ms."""
    if bucket is None:
        return 0
    days = {"d": 1, "mo": 31}.get(bucket.unit)
    if days is None:
        return bucket.count // 1000
    return timedelta(days=days * bucket.count) // timedelta(milliseconds=1)


def _with_gaps(
    times: list[int], values: list[float | None], step: int
) -> tuple[list[int], list[float | None]]:
    """The same with a None wherever much longer nothing came than usual."""
    if len(times) < 3:
        return times, values
    usual = max(step, median(later - earlier for earlier, later in pairwise(times)))
    found_times, found_values = times[:1], values[:1]
    for index in range(1, len(times)):
        if times[index] - times[index - 1] > _GAP * usual:
            found_times.append(times[index - 1] + max(1, int(usual)))
            found_values.append(None)
        found_times.append(times[index])
        found_values.append(values[index])
    return found_times, found_values
