"""Readings over HTTP: raw, in buckets, latest; and the account's plan."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter

from paqett import db, devices
from paqett.app import Services
from paqett.errors import Invalid
from paqett.readings import read
from paqett.readings.read import Latest, Rows, Span
from paqett.web.auth import needs, needs_device_or, principal_of
from paqett.web.devices import PlainText, allowed
from paqett.web.ingest import Stored, receive
from paqett.web.times import moment, seconds, words

_Request = Request[Any, Any, State]
_OPEN_END = timedelta(days=1)  # past the furthest a reading may lie ahead


class LatestRows(msgspec.Struct):
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

    @get("/devices/{device_id:str}/telemetry", **needs("telemetry:read"))
    async def device_telemetry(
        self,
        request: _Request,
        device_id: FromPath[str],
        from_: Annotated[str, QueryParameter(name="from")] = "-24h",
        to: FromQuery[str | None] = None,
        metrics: PlainText = None,
        bucket: FromQuery[str | None] = None,
        agg: FromQuery[str | None] = None,
        order: FromQuery[Literal["asc", "desc"]] = "asc",
        limit: Annotated[int, QueryParameter(ge=1, le=read.MAX_LIMIT)] = read.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Rows:
        """`[from, to)`: readings as sent, or aggregates over buckets of one length."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        allowed(principal, device_id)
        now = services.clock()
        end = now + _OPEN_END if to is None else moment(to, now, "to")
        span = Span(moment(from_, now, "from"), end, words(metrics), limit, cursor)
        if span.from_ > span.to:
            raise Invalid("from lies after to.", field="from")
        aggregates = _aggregates(bucket, agg, order)
        timeout_s = services.settings.database.statement_timeout_s
        async with db.transaction(services.pool, timeout_s=timeout_s) as conn:
            await devices.get(conn, principal.account, device_id)
            if bucket is None:
                return await read.read_raw(conn, principal.account, [device_id], span, order, now)
            length = seconds(bucket, "bucket")
            return await read.read_buckets(
                conn, principal.account, [device_id], span, length, aggregates, now
            )

    @get("/devices/{device_id:str}/latest", **needs("telemetry:read"))
    async def device_latest(self, request: _Request, device_id: FromPath[str]) -> LatestRows:
        """The newest reading of each of the device's metrics."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(services.pool) as conn:
            await devices.get(conn, principal.account, device_id)
            now = services.clock()
            return LatestRows(await read.latest(conn, principal.account, [device_id], now))

    @get("/latest", **needs("telemetry:read"))
    async def latest(self, request: _Request, tag: PlainText = None) -> LatestRows:
        """The newest reading of each metric of every device, or of those with `tag`."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        timeout_s = services.settings.database.statement_timeout_s
        async with db.transaction(services.pool, timeout_s=timeout_s) as conn:
            chosen = await devices.ids(
                conn, principal.account, tag=tag, allowed=principal.device_ids
            )
            return LatestRows(await read.latest(conn, principal.account, chosen, services.clock()))


def _aggregates(bucket: str | None, agg: str | None, order: str) -> list[str]:
    """The aggregates asked for. Raises `Invalid` for what does not go together."""
    if bucket is None:
        if agg is not None:
            raise Invalid("agg needs a bucket.", field="agg")
        return []
    if order == "desc":
        raise Invalid("Buckets come in ascending order.", field="order")
    names = words(agg) or ["avg"]
    for name in names:
        if name not in read.AGGREGATES:
            raise Invalid(f"agg is one of {', '.join(read.AGGREGATES)}.", field="agg")
    return names
