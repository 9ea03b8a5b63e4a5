"""Readings over HTTP: raw, in buckets, latest, deletion of a range; and the account's plan."""

from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from paqett import devices
from paqett.app import Services
from paqett.readings import read
from paqett.readings.read import Latest
from paqett.web import queries, removal, tables
from paqett.web.asked import (
    Agg,
    Asked,
    BucketText,
    CursorText,
    FillBy,
    FromTime,
    Limit,
    Metrics,
    Order,
    Points,
    Tag,
    ToTime,
    Zone,
    only,
)
from paqett.web.auth import needs, needs_device_or, principal_of
from paqett.web.devices import allowed
from paqett.web.gone import while_there
from paqett.web.ingest import Stored, receive
from paqett.web.queries import Rows
from paqett.web.times import words

_Request = Request[Any, Any, State]
_PARAMETERS = (
    "metrics", "from", "to", "bucket", "agg", "tz", "fill", "points", "order", "limit", "cursor",
)  # fmt: skip
_TABLE: dict[str, Any] = {"problems": (406, 422), "forms": tables.FORMS}
_QUERY: dict[str, Any] = {**_TABLE, "answer_headers": queries.HEADERS}


class LatestRows(msgspec.Struct, frozen=True):
    """The newest reading of each series."""

    items: list[Latest]


class TelemetryController(Controller):
    """Ingest; and reads, never metered, always clamped to the tier's retention."""

    path = "/api/v1"
    tags = ["telemetry"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(
        "/devices/{device_id:str}/telemetry",
        status_code=200,
        **needs_device_or("telemetry:write"),
    )
    async def send(self, request: _Request, device_id: FromPath[str]) -> Stored:
        """Store readings: JSON as over MQTT, NDJSON, or CSV `time,metric,value`; gzip or plain.

        Answers after the commit, 200 when at least one point is stored or was there already.
        """
        return await receive(request, device_id)

    @get(
        "/devices/{device_id:str}/telemetry",
        **_QUERY,
        **needs("telemetry:read"),
    )
    async def device_telemetry(
        self,
        request: _Request,
        device_id: FromPath[str],
        metrics: Metrics = "",
        from_: FromTime = "",
        to: ToTime = "",
        bucket: BucketText = "",
        agg: Agg = "",
        tz: Zone = "",
        fill: FillBy = "",
        points: Points = None,
        order: Order = "",
        limit: Limit = None,
        cursor: CursorText = "",
    ) -> Response[Rows]:
        """`[from, to)` of one device: readings as sent, or aggregates over buckets.

        JSON, CSV or NDJSON, as `Accept` says. An empty parameter counts as none.
        """
        only(request, *_PARAMETERS)
        asked = Asked(
            [device_id], words(metrics) if metrics else None, from_, to, bucket, agg, tz, fill,
            points, order, limit, cursor,
        )  # fmt: skip
        return await queries.answer(request, asked)

    @post(
        "/telemetry/query",
        status_code=200,
        **{**_QUERY, "problems": (404, 406, 422)},
        **needs("telemetry:read"),
    )
    async def query_telemetry(self, request: _Request, data: JSONBody[Asked]) -> Response[Rows]:
        """The same for 1 to 1,000 devices; lists are JSON arrays, so names may hold commas."""
        only(request)
        return await queries.answer(request, data)

    @delete(
        "/devices/{device_id:str}/telemetry",
        status_code=204,
        responses=removal.GOES_ON,
        **needs("telemetry:write"),
    )
    async def delete_telemetry(
        self,
        request: _Request,
        device_id: FromPath[str],
        metrics: Metrics = "",
        from_: removal.From = "",
        to: removal.To = "",
    ) -> Response[None]:
        """Delete the readings of `[from, to)`, of all metrics or those named.

        204 when they are gone; 202 where there are so many that a job goes on with it. What was
        counted stays counted, and a device that sends the same readings again stores them again.
        """
        only(request, "metrics", "from", "to")
        chosen = metrics if "metrics" in request.query_params else None
        return await removal.remove(request, device_id, chosen, from_, to)

    @get(
        "/devices/{device_id:str}/latest",
        **_TABLE,
        **needs("telemetry:read"),
    )
    async def device_latest(
        self, request: _Request, device_id: FromPath[str]
    ) -> Response[LatestRows]:
        """The newest reading of each of the device's metrics; JSON, CSV or NDJSON."""
        only(request)
        allowed(principal_of(request), device_id)
        return await _latest(request, [device_id], None)

    @get("/latest", **_TABLE, **needs("telemetry:read"))
    async def latest(self, request: _Request, tag: Tag = "") -> Response[LatestRows]:
        """The newest reading of each metric of every device, or of those with `tag`."""
        only(request, "tag")
        return await _latest(request, None, tag or None)


async def _latest(
    request: _Request, device_ids: list[str] | None, tag: str | None
) -> Response[Any]:
    services: Services = request.app.state.services
    principal = principal_of(request)

    async def look() -> list[Latest]:
        async with services.readers.statements() as conn:
            account = principal.account
            chosen = device_ids
            if chosen is None:
                chosen = await devices.ids(conn, account, tag=tag, allowed=principal.device_ids)
            return await read.latest(conn, account, chosen, services.clock())

    media_type = tables.accepted(request)
    found: list[Latest] = await while_there(request, look())
    if media_type == tables.JSON:
        body = msgspec.json.encode(LatestRows(found))
    else:
        rows = [msgspec.structs.astuple(one) for one in found]
        body = tables.encode(media_type, Latest.__struct_fields__, rows)
    return Response(body, media_type=tables.content_type(media_type))
