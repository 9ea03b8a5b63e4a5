"""`/overview`: how everything stands, on one page."""

from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State

from paqett import charts, db, device_lists, views
from paqett.charts import Chart, Series
from paqett.device_structs import Device
from paqett.readings.query import Query
from paqett.readings.read import Latest, latest
from paqett.views import View
from paqett.web import auth
from paqett.web.alerts import AlertController
from paqett.web.pages import access, plots, view
from paqett.web.pages.asking import ask
from paqett.web.pages.plots import Plot
from paqett.web.usage import UsageController

_Request = Request[Any, Any, State]
_MOST_SPARKS, _SPARK_POINTS, _MOST_ALERTS, _MOST_PINNED = 8, 60, 5, 6


class Line(msgspec.Struct, frozen=True):
    """A device with its first metric's last day."""

    device: Device
    series: Series | None
    last: Latest | None
    chart: Chart | None


@get("/overview", **access.person())
async def overview(request: _Request) -> Response[Any]:
    """Devices, points, alerts and pinned views; whoever has no device yet goes to begin."""
    services = request.app.state.services
    account, now = auth.principal_of(request).account, services.clock()
    async with db.transaction(services.pool) as conn:
        counts = await device_lists.counts(conn, account, now)
        if counts.devices in (0, counts.never):
            return view.done(request, "/start")
        newest = await device_lists.find(conn, account, now, sort="data")
        pinned = await views.list_views(conn, account, pinned=True)
    used = await ask(request, UsageController.usage, days=0, months=0)
    recent = await ask(request, AlertController.list_alerts, limit=_MOST_ALERTS)
    lines = await _lines(request, newest.items[:_MOST_SPARKS])
    return view.render(
        request, "overview.html", counts=counts, lines=lines, used=used, alerts=recent.items,
        names=await _names(request, recent.items), pinned=_shown(pinned), in_all=len(pinned),
    )  # fmt: skip


def _shown(pinned: list[View]) -> list[tuple[View, Plot]]:
    return [(one, plots.stored(one.shown)) for one in pinned[:_MOST_PINNED]]


async def _names(request: _Request, found: list[Any]) -> dict[str, str]:
    services = request.app.state.services
    account = auth.principal_of(request).account
    async with db.transaction(services.pool) as conn:
        known = await charts.known(conn, account, [one.device for one in found])
    return {one.device: one.name for one in known}


async def _lines(request: _Request, shown: list[Device]) -> list[Line]:
    services = request.app.state.services
    account, now = auth.principal_of(request).account, services.clock()
    ids = [one.id for one in shown]
    query: Query = charts.bounded(plots.asked(request, Plot(), ids, now), _SPARK_POINTS)
    found = []
    async with services.readers.statements() as conn:
        known = charts.drawable(await charts.known(conn, account, ids))
        newest = await latest(conn, account, ids, now)
        for device in shown:
            series = _first(known, device.id)
            last = [one for one in newest if one.device == device.id]
            if series is None:
                found.append(Line(device, None, max(last, key=_time, default=None), None))
                continue
            chart = await charts.draw(conn, account, [series], query, now)
            of_it = [one for one in last if one.metric == series.metric]
            found.append(Line(device, series, of_it[0] if of_it else None, chart))
    return found


def _first(known: list[Series], device_id: str) -> Series | None:
    """What a device is judged by at a glance: a number where it has one."""
    own = [one for one in known if one.device == device_id]
    return min(own, key=lambda one: one.kind != "number", default=None)


def _time(one: Latest) -> Any:
    return one.time


HANDLERS = (overview,)
