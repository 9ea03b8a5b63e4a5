"""What a chart shows, as its address says: the same words for pages, their data and their CSV."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request

from paqett import charts
from paqett.charts import Chart, Line, Series
from paqett.errors import Invalid
from paqett.readings.buckets import from_us
from paqett.readings.query import Query
from paqett.web import auth
from paqett.web.asked import Asked, settle
from paqett.web.gone import while_there
from paqett.web.pages import access, columns

_Request = Request[Any, Any, Any]
RANGES = (
    ("-15m", "15 minutes"), ("-1h", "hour"), ("-6h", "6 hours"), ("-24h", "24 hours"),
    ("-7d", "7 days"), ("-30d", "30 days"), ("-90d", "90 days"), ("-365d", "year"),
)  # fmt: skip
BUCKETS = (
    ("", "as fits"), ("1s", "1 second"), ("10s", "10 seconds"), ("1m", "1 minute"),
    ("5m", "5 minutes"), ("15m", "15 minutes"), ("1h", "1 hour"), ("6h", "6 hours"),
    ("1d", "1 day"), ("1w", "1 week"), ("1mo", "1 month"),
)  # fmt: skip
AGGREGATES = (
    ("avg", "average"), ("min", "lowest"), ("max", "highest"), ("sum", "sum"), ("count", "count"),
    ("first", "first"), ("last", "last"), ("p50", "median"), ("p95", "95th percentile"),
)  # fmt: skip
_IN_WORDS = dict(AGGREGATES) | {"first": "first value", "last": "last value"}
_COUNTED = ("sum", "count")
_MOST_TEXT = 4000
TABLE_POINTS = 100
"""Of one series in a table."""


class Plot(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """`series` are `device:metric`, or `device:` for every number of a device.

    A `range` back from now, or `from_` and `to` as they were given; texts of the API's parameters.
    """

    series: tuple[str, ...] = ()
    range: str = "-24h"
    from_: str = ""
    to: str = ""
    bucket: str = ""
    agg: str = "avg"

    @property
    def live(self) -> bool:
        """Whether it ends now, and so goes on."""
        return not self.from_

    @property
    def span(self) -> dict[str, str]:
        """`from` and `to` as the API takes them."""
        if self.from_:
            return {"from": self.from_, **({"to": self.to} if self.to else {})}
        return {"from": self.range}

    def query(self, *, series: bool = True, **more: str) -> str:
        """As the query string of an address."""
        chosen = [("s", one) for one in self.series] if series else []
        span = list(self.span.items()) if self.from_ else [("range", self.range)]
        rest = [("bucket", self.bucket)] if self.bucket else []
        rest += [("agg", self.agg)] if self.agg != "avg" else []
        return urlencode([*chosen, *span, *rest, *more.items()])


def parse(request: _Request, series: Sequence[str] | None = None) -> Plot:
    """What the address asks for; `series` where the page knows them. Raises `Invalid`."""
    given = request.query_params
    chosen = tuple(dict.fromkeys(given.getall("s", []) if series is None else series))
    if sum(len(one) for one in chosen) > _MOST_TEXT or any("\0" in one for one in chosen):
        raise Invalid("These series cannot be shown.", field="s")
    zone = _zone(request)
    from_, to = (_local(given.get(name, ""), zone, name) for name in ("from", "to"))
    ranged = given.get("range", "" if from_ else "-24h")
    custom = ranged in ("", "custom") and from_
    return Plot(
        chosen,
        "-24h" if ranged in ("", "custom") else ranged,
        from_ if custom else "",
        to if custom else "",
        given.get("bucket", ""),
        given.get("agg", "avg") or "avg",
    )


def stored(text: str) -> Plot:
    """The plot of a query string of ours, with `Plot`'s own for what is missing or too long."""
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(text[:_MOST_TEXT].lstrip("?")):
        given.setdefault(name, []).append(value)
    last = {name: values[-1][:40] for name, values in given.items()}
    series = tuple(dict.fromkeys(given.get("s", [])))[: charts.MOST_SERIES]
    how = {"bucket": last.get("bucket", ""), "agg": last.get("agg", "avg")}
    if last.get("from"):
        return Plot(series, "-24h", last["from"], last.get("to", ""), **how)
    return Plot(series, last.get("range", "-24h"), **how)


def _zone(request: _Request) -> str:
    person = access.person_of(request)
    return person.time_zone if person else "UTC"


def _local(text: str, zone: str, field: str) -> str:
    """What a form's date and time mean in the person's zone; everything else as it is."""
    if len(text) > 40:
        raise Invalid(f"{field} is not a moment.", field=field)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is not None:
        return text
    return moment.replace(tzinfo=ZoneInfo(zone)).isoformat()


def field_time(text: str, zone: str) -> str:
    """A moment as a form's field of date and time holds it; empty for what is relative."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M:%S")


def ranges(retention: timedelta) -> list[tuple[str, str]]:
    """Those that a plan's readings can fill."""
    days = {"-7d": 7, "-30d": 30, "-90d": 90, "-365d": 365}
    return [(key, name) for key, name in RANGES if days.get(key, 0) <= retention.days]


def asked(request: _Request, plot: Plot, devices: list[str], now: datetime) -> Query:
    """The readings a plot is of. Raises `Invalid` and names the field."""
    zone = _zone(request)
    wanted = Asked(
        devices, None, plot.span["from"], plot.span.get("to") or "now", plot.bucket or None,
        plot.agg, zone, points=None if plot.bucket else charts.MOST_POINTS,
    )  # fmt: skip
    found = settle(wanted, now).query
    if len(found.aggregates) != 1:
        raise Invalid("A chart shows one aggregate.", field="agg")
    return found


def choose(known: Sequence[Series], wanted: Sequence[str]) -> list[Series]:
    """The series that are wanted and can be drawn. Raises `Invalid` for more than eight."""
    able = charts.drawable(list(known))
    by_key = {one.key: one for one in able}
    found: dict[str, Series] = {}
    for key in wanted:
        device, _, metric = key.partition(":")
        if metric:
            found |= {key: by_key[key]} if key in by_key else {}
        else:
            whole = [one for one in able if one.device == device][: charts.MOST_SERIES]
            found |= {one.key: one for one in whole}
    if len(found) > charts.MOST_SERIES:
        raise Invalid(f"A chart shows at most {charts.MOST_SERIES} metrics.", field="s")
    return list(found.values())


def devices_of(plot: Plot) -> list[str]:
    """The devices its series are of."""
    return list(dict.fromkeys(one.partition(":")[0] for one in plot.series))


async def draw(request: _Request, plot: Plot, points: int) -> Chart:
    """The plot's lines, read for the signed-in person; ends with the request. Raises `Invalid`."""
    services = request.app.state.services
    account = auth.principal_of(request).account
    now: datetime = services.clock()
    devices = devices_of(plot)
    query = charts.bounded(asked(request, plot, devices or ["-"], now), points)

    async def read() -> Chart:
        async with services.readers.statements() as conn:
            series = choose(await charts.known(conn, account, devices), plot.series)
            return await charts.draw(conn, account, series, query, now)

    found: Chart = await while_there(request, read())
    return _counted(found) if plot.agg == "count" else found


def _counted(chart: Chart) -> Chart:
    """Numbers of values, which have no unit."""
    lines = [msgspec.structs.replace(line, unit=None) for line in chart.lines]
    return msgspec.structs.replace(chart, lines=lines)


class Row(msgspec.Struct, frozen=True):
    """One moment of a table; what each line says of it, nothing where nothing was stored."""

    time: datetime
    texts: list[str]


class Table(msgspec.Struct, frozen=True):
    """A chart as rows, newest first."""

    chart: Chart
    rows: list[Row]
    what: str
    """What is made of a bucket's values, in words."""

    @property
    def seconds(self) -> bool:
        """Whether rows are less than a minute apart."""
        return self.chart.bucket is None or self.chart.bucket.endswith("s")


async def table(request: _Request, plot: Plot) -> Table:
    """The plot as a table of at most 100 rows a line. Raises as `draw` does."""
    points = msgspec.structs.replace(plot, bucket="")
    chart = await draw(request, points, TABLE_POINTS)
    found = [dict(zip(line.times, _texts(line, plot.agg), strict=True)) for line in chart.lines]
    times = sorted({time for column in found for time, text in column.items() if text})
    rows = [Row(from_us(time * 1000), [column.get(time, "") for column in found]) for time in times]
    return Table(chart, rows[::-1], _IN_WORDS.get(plot.agg, plot.agg))


def _texts(line: Line, agg: str) -> list[str]:
    """A line's values as a column shows them."""
    if line.kind == "boolean" and agg not in _COUNTED:
        return ["" if value is None else _flag(value) for value in line.values]
    places = columns.decimals(line.values)
    return ["" if value is None else f"{value:,.{places}f}" for value in line.values]


def _flag(value: float) -> str:
    return {0.0: "false", 1.0: "true"}.get(value) or f"{100 * value:.0f}\u00a0% true"
