"""`/api/v1/stream`, `/api/v1/devices/{id}/stream`: readings as they are stored, refusals, status.

Server-sent events (WHATWG HTML §9.2). A stream begins with how the devices stand and with the
latest value of each metric, so one that comes back has missed nothing that matters; the same is
looked at again while it lasts, and what is newer is sent.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar import Controller, Request, get
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from paqett import db, devices, log, streams
from paqett.app import Services
from paqett.errors import PaqettError
from paqett.principals import Principal
from paqett.readings import read
from paqett.readings.incoming import Refusals
from paqett.readings.live import Part
from paqett.readings.source import look
from paqett.streams import Status
from paqett.web.auth import needs, principal_of
from paqett.web.devices import allowed
from paqett.web.live import Hub, Subscription

_logger = log.get("live")
_TICK_S = 5.0  # how often the database is asked whether the stream may go on
_LOOK_TICKS = 3  # every so many ticks everything is looked at again
_SEND_S = 20.0  # a reader that takes nothing for so long is let go
_MOST_DEVICES = 1000  # whose status an account's stream tells by itself
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_RESPONSES = {200: ResponseSpec(str, media_type="text/event-stream", description="Events.")}


class StreamController(Controller):
    """What happens, while it happens."""

    path = "/api/v1"
    tags = ["live"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get("/stream", responses=_RESPONSES, problems=(409,), **needs("telemetry:read"))
    async def account_stream(self, request: Request[Any, Any, State]) -> ASGIApp:
        """Everything of the account, or of the devices the key is for."""
        return await _open(request, None)

    @get(
        "/devices/{device_id:str}/stream", responses=_RESPONSES, problems=(409,),
        **needs("telemetry:read"),
    )  # fmt: skip
    async def device_stream(
        self, request: Request[Any, Any, State], device_id: FromPath[str]
    ) -> ASGIApp:
        """One device."""
        allowed(principal_of(request), device_id)
        return await _open(request, device_id)


async def _open(request: Request[Any, Any, State], device_id: str | None) -> ASGIApp:
    services: Services = request.app.state.services
    principal = principal_of(request)
    async with db.transaction(services.pool) as conn:
        if device_id is not None:
            await devices.get(conn, principal.account, device_id)
        plan = services.plans[principal.account.plan]
        stream_id = await streams.open_stream(conn, principal, plan, device_id)
    hub: Hub = request.app.state.hub
    return _Response(_Stream(services, hub, principal, device_id, stream_id))


class _Stream:
    """The events of one reader, in order."""

    def __init__(
        self, services: Services, hub: Hub, principal: Principal, device_id: str | None,
        stream_id: uuid.UUID,
    ) -> None:  # fmt: skip
        self._services, self._hub, self._principal = services, hub, principal
        self._device_id, self._id = device_id, stream_id
        self._newest: dict[tuple[str, str], datetime] = {}
        self._statuses: dict[str, Status] = {}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Until the reader must go."""
        account = self._principal.account.id
        subscription = await self._hub.subscribe(
            account, self._device_id, self._principal.device_ids
        )
        try:
            yield b"retry: 2000\n\n"
            async for event in self._look():
                yield event
            async for event in self._follow(subscription):
                yield event
        finally:
            self._hub.unsubscribe(account, subscription)

    async def close(self) -> None:
        """Make room for another stream of the account."""
        try:
            async with db.transaction(self._services.pool) as conn:
                await streams.close(conn, self._principal.account.id, self._id)
        except PaqettError:
            _logger.info("a stream ends by itself: the database is away")

    async def _follow(self, subscription: Subscription) -> AsyncGenerator[bytes, None]:
        # a flush that had begun before the stream stood in the database did not see it: look again
        due, ticks = time.monotonic() + 1, 0
        while True:
            part = await subscription.next(max(0.0, due - time.monotonic()))
            if part is not None:
                for event in await self._told(part):
                    yield event
            if subscription.ended and part is None:
                yield _event("end", {"reason": subscription.ended})
                return
            if time.monotonic() < due:
                continue
            if not await self._keep():
                yield _event("end", {"reason": "the key, session, device or account is gone"})
                return
            yield b": heartbeat\n\n"
            if ticks % _LOOK_TICKS == 0:
                async for event in self._look():
                    yield event
            due, ticks = time.monotonic() + _TICK_S, ticks + 1

    async def _keep(self) -> bool:
        async with db.transaction(self._services.pool) as conn:
            return await streams.keep(conn, self._principal.account.id, self._id)

    async def _look(self) -> AsyncGenerator[bytes, None]:
        """How the devices stand and the latest values, as far as they are new to the reader."""
        account, now = self._principal.account, self._services.clock()
        async with self._services.readers.statements() as conn:
            account = await look(conn, account)  # a stream lasts long enough for a move
            chosen = await self._devices(conn)
            statuses = await streams.statuses(conn, account.id, chosen[:_MOST_DEVICES], now)
            latest = await read.latest(conn, account, chosen, now)
        for status in statuses:
            if self._statuses.get(status.device) != status:
                self._statuses[status.device] = status
                yield _event("status", status)
        for row in latest:
            if self._is_newer(row.device, row.metric, row.time):
                yield _event("reading", row)

    async def _devices(self, conn: db.Connection) -> list[str]:
        if self._device_id is not None:
            return [self._device_id]
        principal = self._principal
        return await devices.ids(conn, principal.account, tag=None, allowed=principal.device_ids)

    def _is_newer(self, device: str, metric: str, at: datetime) -> bool:
        """Whether the reader has not been told this or a later one."""
        key = device, metric
        if self._newest.get(key, _EPOCH) >= at:
            return False
        self._newest[key] = at
        return True

    async def _told(self, part: Part) -> list[bytes]:
        found = []
        for metric, time_us, value in part.readings:
            when = _moment(time_us)
            self._is_newer(part.device, metric, when)
            row = {"time": when, "device": part.device, "metric": metric, "value": value}
            found.append(_event("reading", row))
        for code, refused in part.refused.items():
            found.append(_event("rejection", _refusal(part.device, code, refused)))
        if part.status:
            now = self._services.clock()
            async with db.transaction(self._services.pool) as conn:
                account = self._principal.account.id
                for status in await streams.statuses(conn, account, [part.device], now):
                    self._statuses[status.device] = status
                    found.append(_event("status", status))
        return found


def _refusal(device: str, code: str, refused: Refusals) -> dict[str, Any]:
    """As on the device's own `errors` topic."""
    told: dict[str, Any] = {
        "device": device,
        "code": code,
        "count": refused.points,
        "first_ts": _moment(refused.first_us),
        "last_ts": _moment(refused.last_us),
    }
    if refused.limit is not None:
        told["limit"] = refused.limit
    if refused.resets_us is not None:
        told["resets_at"] = _moment(refused.resets_us)
    return told


def _moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)


def _event(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


class _Response:
    """The stream as an ASGI application: ends with the reader, and with one that takes nothing."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader is gone or must go."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await asyncio.shield(self._stream.close())

    async def _send(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            async with aclosing(self._stream.events()) as events:
                async for event in events:
                    async with asyncio.timeout(_SEND_S):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (PaqettError, OSError) as error:  # a timeout is an OSError too
            _logger.info("a stream ended", reason=str(error) or type(error).__name__)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
