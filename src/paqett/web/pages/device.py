"""`/devices/{id}`: its readings, its metrics, its connections, what it is called, and its end."""

from datetime import timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Template

from paqett import alerts, charts, db, devices, metrics
from paqett.charts import Series
from paqett.device_structs import Device
from paqett.errors import Invalid, Problem
from paqett.readings import read
from paqett.web import auth
from paqett.web.billing import get_plan
from paqett.web.devices import DeviceChange, DeviceController
from paqett.web.metrics import MetricChange
from paqett.web.pages import access, plots, view
from paqett.web.pages.asking import ask
from paqett.web.pages.devices import given
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.pages.plots import Plot

_Request = Request[Any, Any, State]
_AT_FIRST = 4  # metrics on a chart nobody has chosen any for
_MOST_RULES = 1000
_A_PAGE = 50
KINDS = (("number", "number"), ("boolean", "boolean"), ("text", "text"))


async def _device(request: _Request, device_id: str) -> Device:
    found: Device = await ask(request, DeviceController.get_device, device_id=device_id)
    return found


async def retention(request: _Request) -> timedelta:
    """How long the account's readings are kept."""
    plan = await ask(request, get_plan)
    return timedelta(days=plan.retention_days)


def _plot(request: _Request, device_id: str, known: list[Series]) -> Plot:
    """What is asked for of this device, or its first metrics. Raises `Invalid`."""
    asked = [one for one in request.query_params.getall("s", []) if one.startswith(f"{device_id}:")]
    first = [one.key for one in charts.drawable(known)][:_AT_FIRST]
    plot = plots.parse(request, asked or first)
    plots.choose(known, plot.series)
    plots.asked(request, plot, [device_id], request.app.state.services.clock())
    return plot


@get("/devices/{device_id:str}", **access.person())
async def device_page(
    request: _Request,
    device_id: FromPath[str],
    shown: Annotated[str, QueryParameter(name="view")] = "",
) -> Template:
    """Its chart, or a table of the same, and the latest value of every metric."""
    device = await _device(request, device_id)
    services = request.app.state.services
    account, now = auth.principal_of(request).account, services.clock()
    async with services.readers.statements() as conn:
        known = await charts.known(conn, account, [device_id])
        latest = await read.latest(conn, account, [device_id], now)
    form = Form()
    try:
        plot = _plot(request, device_id, known)
        table = await plots.table(request, plot) if shown == "table" else None
    except Problem as error:
        plot, table = Plot(tuple(one.key for one in charts.drawable(known)[:_AT_FIRST])), None
        form = form.refuse(error)
    return view.render(
        request, "device.html", form=form, device=device, known=known, plot=plot, table=table,
        chosen=plot.series, latest={one.metric: one for one in latest},
        ranges=plots.ranges(await retention(request)), as_table=shown == "table",
    )  # fmt: skip


async def _settings(request: _Request, device_id: str, form: Form | None = None) -> Template:
    device = await _device(request, device_id)
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        known = await charts.known(conn, account, [device_id])
        rules = await alerts.list_rules(conn, account, devices=None, limit=_MOST_RULES, cursor=None)
    about = [one for one in rules.items if one.device_id == device_id]
    return view.render(
        request, "device_settings.html", form=form, device=device, known=known, rules=about
    )


@get("/devices/{device_id:str}/settings", **access.person())
async def device_settings(request: _Request, device_id: FromPath[str]) -> Template:
    """What it is called, its secret, and its deletion."""
    return await _settings(request, device_id)


@post("/devices/{device_id:str}/settings", **access.person())
async def change_device(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """Save what the form says."""
    form = await sent(request)
    try:
        data = convert(given(form), DeviceChange)
        await ask(request, DeviceController.update_device, device_id=device_id, data=data)
    except Problem as error:
        if error.status == 404:
            raise
        return await _settings(request, device_id, form.refuse(error))
    return view.done(request, f"/devices/{device_id}/settings", "saved")


@post("/devices/{device_id:str}/enabled", **access.person())
async def enable_device(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """Let it send, or refuse what it sends."""
    form = await sent(request)
    wanted = DeviceChange(enabled=form.text("enabled") == "yes")
    await ask(request, DeviceController.update_device, device_id=device_id, data=wanted)
    return view.done(request, f"/devices/{device_id}/settings", "saved")


@post("/devices/{device_id:str}/delete", **access.person())
async def delete_device(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """Gone with its readings, once its name was typed."""
    form = await sent(request)
    device = await _device(request, device_id)
    if form.text("confirm").strip() != device.thing_name:
        wrong = Invalid(f"Type {device.thing_name} to delete it.", field="confirm")
        return await _settings(request, device_id, form.refuse(wrong))
    await ask(request, DeviceController.delete_device, device_id=device_id)
    return view.done(request, "/devices", "device_deleted")


@get("/devices/{device_id:str}/connections", **access.person())
async def connections(
    request: _Request, device_id: FromPath[str], cursor: FromQuery[str | None] = None
) -> Template:
    """The broker's record, newest first."""
    device = await _device(request, device_id)
    page = await ask(
        request, DeviceController.device_events, device_id=device_id, limit=_A_PAGE, cursor=cursor
    )
    return view.render(
        request, "device_connections.html", device=device, events=page.items, cursor=cursor,
        next_cursor=page.next_cursor,
    )  # fmt: skip


async def _metrics(request: _Request, device_id: str, form: Form | None = None) -> Template:
    device = await _device(request, device_id)
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        page = await metrics.list_metrics(conn, account, device_id)
    most = request.app.state.services.plans[account.plan].metrics_per_device
    return view.render(
        request, "device_metrics.html", form=form, device=device, metrics=page.items, kinds=KINDS,
        most=most,
    )  # fmt: skip


@get("/devices/{device_id:str}/metrics", **access.person())
async def device_metrics(request: _Request, device_id: FromPath[str]) -> Template:
    """What each is called, its unit and kind."""
    return await _metrics(request, device_id)


@post("/devices/{device_id:str}/metrics", **access.person())
async def change_metric(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """Label, unit and kind of one."""
    form = await sent(request)
    wanted = {
        "label": form.given("label"),
        "unit": form.given("unit"),
        "kind": form.text("kind", "number"),
    }
    account = auth.principal_of(request).account
    try:
        change = msgspec.structs.asdict(convert(wanted, MetricChange))
        async with db.transaction(request.app.state.services.pool) as conn:
            await devices.get(conn, account, device_id)
            await metrics.update(conn, account, device_id, form.text("metric"), change)
    except Problem as error:
        if error.status == 404:
            raise
        return await _metrics(request, device_id, form.refuse(error))
    return view.done(request, f"/devices/{device_id}/metrics", "saved")


@post("/devices/{device_id:str}/metrics/delete", **access.person())
async def delete_metric(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """The metric at once, its readings by a job."""
    form = await sent(request)
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        await metrics.delete(conn, account, device_id, form.text("metric"))
    return view.done(request, f"/devices/{device_id}/metrics", "metric_deleted")


HANDLERS = (
    device_page, device_settings, change_device, enable_device, delete_device, connections,
    device_metrics, change_metric, delete_metric,
)  # fmt: skip
