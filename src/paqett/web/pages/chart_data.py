"""What charts are drawn from, and the same as CSV. Pages of ours ask, so it is not metered."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp

from paqett import charts, db, devices
from paqett.readings.buckets import from_us
from paqett.web import auth, queries, tables
from paqett.web.asked import Asked
from paqett.web.pages import access, plots
from paqett.web.pages.asking import ask
from paqett.web.streams import StreamController
from paqett.web.times import words

_Request = Request[Any, Any, State]
_Points = Annotated[int, QueryParameter(ge=10, le=charts.MOST_POINTS)]
_COLUMNS = ("time", "device", "metric", "value")


@get("/charts/data", **access.person())
async def chart_data(request: _Request, points: _Points = 1000) -> Response[bytes]:
    """Lines of at most `points` points: as columns, which are a quarter of rows' size."""
    plot = plots.parse(request)
    body = msgspec.json.encode(await plots.draw(request, plot, points))
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@get("/charts/readings.csv", **access.person())
async def chart_csv(request: _Request, points: _Points = 1000) -> Response[bytes]:
    """Exactly what the chart with the same parameters shows."""
    chart = await plots.draw(request, plots.parse(request), points)
    rows = [
        (from_us(time * 1000), line.device, line.metric, value)
        for line in chart.lines
        for time, value in zip(line.times, line.values, strict=True)
        if value is not None
    ]
    rows.sort(key=lambda row: row[0])
    body = tables.encode(tables.CSV, _COLUMNS, rows)
    return Response(body, media_type=tables.content_type(tables.CSV), headers=_as_file("chart"))


def _as_file(name: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{name}.csv"',
        "Cache-Control": "no-store",
    }


@get("/devices/{device_id:str}/readings.csv", **access.person())
async def readings_csv(
    request: _Request, device_id: FromPath[str], metrics: FromQuery[str] = ""
) -> Response[Any]:
    """Every reading of the range as it was sent, however many there are."""
    plot = plots.parse(request, ())
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        await devices.get(conn, account, device_id)
    chosen = words(metrics) if metrics else None
    span = plot.span
    wanted = Asked([device_id], chosen, from_=span["from"], to=span.get("to"))
    answer = await queries.answer(request, wanted, tables.CSV)
    answer.headers |= _as_file(f"readings-{device_id}")
    return answer


@get("/devices/{device_id:str}/stream", **access.person())
async def stream(request: _Request, device_id: FromPath[str]) -> ASGIApp:
    """The device's events as the API streams them."""
    found: ASGIApp = await ask(request, StreamController.device_stream, device_id=device_id)
    return found


HANDLERS = (chart_data, chart_csv, readings_csv, stream)
