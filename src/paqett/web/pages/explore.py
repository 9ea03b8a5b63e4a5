"""`/explore`: several devices and metrics on one chart, whose address is all there is to share."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Template

from paqett import charts, db, views
from paqett.charts import Series
from paqett.device_structs import Name
from paqett.errors import Invalid, Problem
from paqett.views import View
from paqett.web import auth
from paqett.web.devices import PlainText
from paqett.web.pages import access, device, plots, view
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.pages.plots import Plot

_Request = Request[Any, Any, State]
_PATH = "/explore"
_MOST_OFFERED = 200


class _Named(msgspec.Struct):
    name: Name


async def _show(
    request: _Request, plot: Plot, *, form: Form | None = None, current: View | None = None,
    as_table: bool = False, search: str = "",
) -> Template:  # fmt: skip
    services = request.app.state.services
    account = auth.principal_of(request).account
    async with db.transaction(services.pool) as conn:
        known = charts.drawable(await charts.known(conn, account))
        kept = await views.list_views(conn, account)
    form = form or Form()
    table = None
    try:
        chosen = plots.choose(known, plot.series)
        plots.asked(request, plot, ["-"], services.clock())
        table = await plots.table(request, plot) if as_table and chosen else None
    except Problem as error:
        chosen, form = [], form.refuse(error)
    plot = msgspec.structs.replace(plot, series=tuple(one.key for one in chosen))
    offered = [one for one in known if _fits(one, search) and one not in chosen]
    return view.render(
        request, "explore.html", form=form, plot=plot, chosen=chosen, table=table,
        as_table=as_table, offered=offered[:_MOST_OFFERED], more=len(offered) - _MOST_OFFERED,
        search=search, any_known=bool(known), views=kept, current=current,
        ranges=plots.ranges(await device.retention(request)), most=charts.MOST_SERIES,
        without={one.key: _without(plot, one.key) for one in chosen},
    )  # fmt: skip


def _fits(series: Series, search: str) -> bool:
    told = f"{series.name} {series.device} {series.metric} {series.label or ''}".lower()
    return all(word in told for word in search.lower().split())


def _without(plot: Plot, key: str) -> str:
    kept = tuple(one for one in plot.series if one != key)
    return msgspec.structs.replace(plot, series=kept).query()


@get(_PATH, **access.person())
async def explore(
    request: _Request,
    shown: Annotated[str, QueryParameter(name="view")] = "",
    saved: FromQuery[int | None] = None,
    q: PlainText = None,
) -> Template:
    """What the address says; `saved` is the view it came from."""
    form, current = Form(), None
    try:
        plot = plots.parse(request)
    except Problem as error:
        plot, form = Plot(), form.refuse(error)
    if saved is not None:
        current = await _view(request, saved)
    return await _show(
        request, plot, form=form, current=current, as_table=shown == "table", search=q or ""
    )


async def _view(request: _Request, view_id: int) -> View:
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        return await views.get(conn, account, view_id)


@get("/explore/views/{view_id:int}", **access.person())
async def open_view(request: _Request, view_id: FromPath[int]) -> Response[Any]:
    """To the chart a view keeps."""
    found = await _view(request, view_id)
    return view.done(request, f"{_PATH}?{found.shown}", saved=str(found.id))


def _shown(form: Form) -> str:
    """The chart to keep, as its own query string. Raises `Invalid`."""
    plot = plots.stored(form.text("shown"))
    if not plot.series:
        raise Invalid("Choose at least one metric first.", field="name")
    return plot.query()


@post("/explore/views", **access.person())
async def keep_view(request: _Request) -> Response[Any]:
    """A new view of what is seen."""
    form = await sent(request)
    services = request.app.state.services
    account = auth.principal_of(request).account
    try:
        name = convert({"name": form.text("name").strip()}, _Named).name
        async with db.transaction(services.pool) as conn:
            made = await views.create(
                conn, account, name, _shown(form), services.clock(), pinned=form.has("pinned")
            )
    except Problem as error:
        return await _show(request, plots.stored(form.text("shown")), form=form.refuse(error))
    return view.done(request, f"{_PATH}?{made.shown}", "view_saved", saved=str(made.id))


async def _change(request: _Request, view_id: int, form: Form, **changes: Any) -> Response[Any]:
    services = request.app.state.services
    account = auth.principal_of(request).account
    try:
        async with db.transaction(services.pool) as conn:
            found = await views.update(conn, account, view_id, services.clock(), **changes)
    except Problem as error:
        if error.status == 404:
            raise
        current = await _view(request, view_id)
        return await _show(
            request, plots.stored(current.shown), form=form.refuse(error, name="new_name"),
            current=current,
        )  # fmt: skip
    return view.done(request, f"{_PATH}?{found.shown}", "view_saved", saved=str(found.id))


@post("/explore/views/{view_id:int}", **access.person())
async def change_view(request: _Request, view_id: FromPath[int]) -> Response[Any]:
    """Another name, what is seen now, pinned or not: whichever button was pressed."""
    form = await sent(request)
    try:
        changes = _changes(form)
    except Problem as error:
        current = await _view(request, view_id)
        refused = form.refuse(error, name="new_name")
        return await _show(
            request,
            plots.stored(form.text("shown") or current.shown),
            form=refused,
            current=current,
        )
    return await _change(request, view_id, form, **changes)


def _changes(form: Form) -> dict[str, Any]:
    wanted = form.text("do")
    if wanted == "rename":
        return {"name": convert({"name": form.text("new_name").strip()}, _Named).name}
    if wanted in ("pin", "unpin"):
        return {"pinned": wanted == "pin"}
    return {"shown": _shown(form)}


@post("/explore/views/{view_id:int}/delete", **access.person())
async def delete_view(request: _Request, view_id: FromPath[int]) -> Response[Any]:
    """Gone; its devices and readings stay."""
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        await views.delete(conn, account, view_id)
    return view.done(request, _PATH, "view_deleted")


HANDLERS = (explore, open_view, keep_view, change_view, delete_view)
