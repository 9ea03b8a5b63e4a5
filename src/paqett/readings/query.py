"""What can be asked of an account's readings, and the pages of the answer."""

from datetime import datetime, timedelta
from typing import Any, Literal, cast

import msgspec

from paqett.readings.buckets import Bucket
from paqett.readings.packed import Packed

AGGREGATES = ("avg", "min", "max", "sum", "count", "first", "last", "p50", "p95")
TEXT_AGGREGATES = ("count", "first", "last")
Fill = Literal["none", "null", "previous"]


class Query(msgspec.Struct, frozen=True):
    """Readings of `[from_, to)`; `metrics` None is all.

    Without a bucket they come as they were sent; with one, a row for each bucket and series.
    `points` picks the bucket, in the zone `tz`: at most so many of it in the range. `pace` is how
    long a page lasts, where one has been read. Pages may be `packed` where they hold numbers alone.
    """

    devices: list[str]
    metrics: list[str] | None
    from_: datetime
    to: datetime
    descending: bool = False
    bucket: Bucket | None = None
    points: int | None = None
    tz: str = "UTC"
    aggregates: tuple[str, ...] = ()
    fill: Fill = "none"
    pace: timedelta | None = None
    packed: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What each row of the answer holds, in order."""
        if not self.aggregates:
            return ("time", "device", "metric", "value")
        value = ("value",) if len(self.aggregates) == 1 else ()
        return ("time", "device", "metric", *self.aggregates, *value)


class Position(msgspec.Struct, frozen=True):
    """The last row of a page, by what rows are ordered by."""

    time: datetime
    series_id: int


class Page(msgspec.Struct, frozen=True):
    """Rows in the order of `Query.columns`; `last` is None where nothing follows.

    `from_` is the query's, clamped to what may be read; `bucket` is the query's, or what `points`
    chose. A packed page has no rows but `packed`, and in `labels` device and metric by series' id.
    """

    rows: list[tuple[Any, ...]]
    last: Position | None
    from_: datetime
    bucket: Bucket | None = None
    packed: Packed | None = None
    labels: dict[int, tuple[str, str]] = {}

    @property
    def span(self) -> timedelta:
        """From its first row to its last; there must be one."""
        if self.packed is not None:
            return cast("timedelta", (self.packed.times[-1] - self.packed.times[0]).item())
        return abs(cast("timedelta", self.rows[-1][0] - self.rows[0][0]))
