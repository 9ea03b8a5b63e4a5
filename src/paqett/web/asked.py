"""What a request for telemetry asks: the parameters of GET, the body of POST, and their meaning."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.params import QueryParameter

from paqett.errors import Invalid
from paqett.readings import buckets, cursor
from paqett.readings.query import AGGREGATES, Fill, Position, Query
from paqett.readings.read import AHEAD
from paqett.web.times import moment, words

DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000
MAX_DEVICES = MAX_METRICS = 1000
_TIME = "RFC 3339 with an offset, epoch milliseconds, `now`, or relative such as `-24h`."

# the parameters of GET, as the OpenAPI document shows them; empty is not given. None of the texts
# may be None: the text "null" would be read as that
FromTime = Annotated[str, QueryParameter(name="from", description=f"{_TIME} Default: `-24h`.")]
ToTime = Annotated[
    str,
    QueryParameter(
        name="to",
        description=f"{_TIME} Not included. Default: open, or now with `fill` or `points`.",
    ),
]
Metrics = Annotated[
    str,
    QueryParameter(
        name="metrics", pattern=r"^[^\x00]*$",
        description="Names, separated by commas. Default: all. Unknown ones have no readings.",
    ),
]  # fmt: skip
BucketText = Annotated[
    str,
    QueryParameter(
        name="bucket",
        description="A length (`10s`, `5m`, `1h`), or days, weeks from Monday or months of the"
        " zone `tz` (`1d`, `1w`, `1mo`).",
    ),
]
Agg = Annotated[
    str,
    QueryParameter(
        name="agg",
        description=f"Some of {', '.join(AGGREGATES)}, separated by commas. Text metrics have"
        " count, first and last. Default: avg.",
    ),
]
Zone = Annotated[
    str,
    QueryParameter(name="tz", description="Where days begin: `Europe/Berlin`. Default: UTC."),
]
FillBy = Annotated[
    Fill | Literal[""],
    QueryParameter(
        name="fill",
        description="Empty buckets of series that have a reading in the range: `none` leaves them"
        " out, `null`, or `previous` values from within the range. Default: none.",
    ),
]
Points = Annotated[
    int | None,
    QueryParameter(
        name="points", ge=1, le=MAX_LIMIT,
        description="Instead of `bucket`: the shortest nice one that gives a series at most so"
        " many. The header `Paqett-Bucket` says which.",
    ),
]  # fmt: skip
Order = Annotated[
    Literal["asc", "desc", ""],
    QueryParameter(name="order", description="By time, then by series. Default: asc."),
]
Limit = Annotated[
    int | None,
    QueryParameter(
        name="limit", ge=1, le=MAX_LIMIT,
        description=f"Rows of a page. Default: {DEFAULT_LIMIT} in JSON; CSV and NDJSON without it"
        " are the whole range.",
    ),
]  # fmt: skip
Tag = Annotated[
    str, QueryParameter(name="tag", pattern=r"^[^\x00]*$", description="Default: all devices.")
]
CursorText = Annotated[
    str,
    QueryParameter(
        name="cursor", description="`next_cursor` of the page before, with the same parameters."
    ),
]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Readings of some devices: the members mean what GET's parameters of the same names mean."""

    devices: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_DEVICES)]
    metrics: Annotated[list[str], msgspec.Meta(max_length=MAX_METRICS)] | None = None
    from_: str | int | None = None
    to: str | int | None = None
    bucket: str | None = None
    agg: list[str] | str | None = None
    tz: str | None = None
    fill: Fill | Literal[""] = ""
    points: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] | None = None
    order: Literal["asc", "desc", ""] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] | None = None
    cursor: str | None = None


class Wanted(msgspec.Struct, frozen=True):
    """What was asked, settled: `after` is where the page begins; `asked` goes into its cursor."""

    query: Query
    after: Position | None
    asked: int


def only(request: Request[Any, Any, State], *names: str) -> None:
    """Raises `Invalid` for a query parameter that is none of `names`, or is given twice."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in names:
            known = f"There are {', '.join(names)}." if names else "There are none here."
            shown = name[:64] if name.isprintable() else "?"
            raise Invalid(f"There is no query parameter {shown}. {known}", field=shown)
        if given.count(name) > 1:
            raise Invalid(f"The query parameter {name} is given twice.", field=name)


def settle(asked: Asked, now: datetime) -> Wanted:
    """What `asked` means at `now`. Raises `Invalid` and names the field."""
    tz = buckets.zone(asked.tz or "UTC")
    aggregates = _aggregates(asked)
    metrics = None if asked.metrics is None else [metric_name(metric) for metric in asked.metrics]
    devices = sorted(set(asked.devices))
    fingerprint = cursor.fingerprint(
        devices, metrics, asked.bucket, asked.points, tz, aggregates, asked.order, asked.fill
    )
    from_, to = _range(asked, now)
    bucket, points, after = asked.bucket or None, asked.points, None
    if asked.cursor:
        found = cursor.read(asked.cursor, fingerprint)
        from_, to = found.span
        bucket, points, after = found.bucket, None, found.position
    query = Query(
        devices, metrics, from_, to, asked.order == "desc",
        None if bucket is None else buckets.parse(bucket, tz),
        points, tz, aggregates, asked.fill or "none",
    )  # fmt: skip
    return Wanted(query, after, fingerprint)


def _range(asked: Asked, now: datetime) -> tuple[datetime, datetime]:
    """Nothing lies beyond `AHEAD` of now, so neither does a range."""
    from_ = moment(str(asked.from_ or "-24h"), now, "from")
    if asked.to is None or asked.to == "":
        open_end = now + AHEAD
        return from_, now if asked.points or (asked.fill or "none") != "none" else open_end
    to = moment(str(asked.to), now, "to")
    if from_ > to:
        raise Invalid("from lies after to.", field="from")
    return from_, min(to, now + AHEAD)


def _aggregates(asked: Asked) -> tuple[str, ...]:
    """What is asked for, each once. Raises `Invalid` for what does not go together."""
    bucketed = bool(asked.bucket) or asked.points is not None
    if asked.bucket and asked.points is not None:
        raise Invalid("bucket and points exclude each other.", field="points")
    if not bucketed:
        for field, given in (("agg", asked.agg), ("fill", (asked.fill or "none") != "none")):
            if given:
                raise Invalid(f"{field} needs a bucket, or points.", field=field)
        return ()
    names = words(asked.agg) if isinstance(asked.agg, str) else asked.agg
    for name in names or ():
        if name not in AGGREGATES:
            raise Invalid(f"agg is some of {', '.join(AGGREGATES)}.", field="agg")
    return tuple(dict.fromkeys(names or ["avg"]))


def metric_name(metric: str) -> str:
    """A metric as it is stored. Raises `Invalid` for what PostgreSQL's text cannot hold."""
    if "\0" in metric:
        raise Invalid("A metric's name holds no NUL.", field="metrics")
    return metric.replace("/", ".")
