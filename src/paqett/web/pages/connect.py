"""A device's first readings: its secret shown once, lines to paste, and a box that waits.

The same page serves the first run, every further device, and a secret that was replaced.
"""

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template

from paqett import db, devices, snippets
from paqett.device_structs import Device, DeviceIn, Event
from paqett.errors import Problem
from paqett.keys import NewKey
from paqett.readings import read
from paqett.web import auth
from paqett.web.api_keys import ApiKeyController, KeyIn
from paqett.web.devices import DeviceController
from paqett.web.pages import access, health, proof, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, sent
from paqett.web.pages.plots import Plot
from paqett.web.snippets import place
from paqett.web.usage import UsageController

_Request = Request[Any, Any, State]
_FIRST = DeviceIn("first-device", friendly_name="First device")
_SCOPES = ["telemetry:read", "devices:read"]
_LATEST, _EVENTS, _REFUSALS = 10, 5, 3


class _Heard(msgspec.Struct):
    """What is known of a device that somebody is just setting up."""

    device: Device
    advice: health.Health
    events: list[Event]
    latest: list[read.Latest]
    refusals: list[Any]


async def _heard(request: _Request, device_id: str) -> _Heard:
    device = await ask(request, DeviceController.get_device, device_id=device_id)
    page = await ask(request, DeviceController.device_events, device_id=device_id, limit=_EVENTS)
    refused = await ask(request, UsageController.rejections, device=device_id, limit=_REFUSALS)
    services = request.app.state.services
    account = auth.principal_of(request).account
    async with services.readers.statements() as conn:
        latest = await read.latest(conn, account, [device_id], services.clock())
    advice = health.advice(device, page.items)
    return _Heard(device, advice, page.items, latest[:_LATEST], refused.items)


def _lines(request: _Request, device: Device, secret: str | None) -> list[snippets.Snippet]:
    found = snippets.snippets(place(request.app.state.services.settings), device.id)
    if secret is None:
        return found
    return [
        msgspec.structs.replace(one, code=one.code.replace(snippets.SECRET, secret))
        for one in found
    ]


async def show(
    request: _Request, device_id: str, *, secret: str | None = None, key: NewKey | None = None,
    first: bool = False, form: Form | None = None,
) -> Template:  # fmt: skip
    """The page; `secret` and `key` stand on this answer and nowhere else."""
    heard = await _heard(request, device_id)
    services = request.app.state.services
    return view.render(
        request, "connect.html", form=form, heard=heard, device=heard.device, secret=secret,
        key=key, first=first, snippets=_lines(request, heard.device, secret),
        reasons=health.REFUSALS, plot=Plot((f"{device_id}:",), range="-15m"),
        place=place(services.settings), arrived=bool(heard.latest),
    )  # fmt: skip


async def _newest(request: _Request) -> str | None:
    """The device somebody is most likely to be setting up."""
    account = auth.principal_of(request).account
    async with db.transaction(request.app.state.services.pool) as conn:
        found = await devices.ids(conn, account, tag=None, allowed=None)
    return found[-1] if found else None


@get("/start", **access.person())
async def start(request: _Request) -> Template:
    """The first device, or one button that makes it: looking at a page makes nothing."""
    device_id = await _newest(request)
    if device_id is None:
        return view.render(request, "start.html")
    return await show(request, device_id, first=True)


@post("/start", **access.person())
async def begin(request: _Request) -> Response[Any]:
    """A device and a key that reads it; both secrets are on this page and nowhere else."""
    form = await sent(request)
    if await _newest(request) is not None:
        return view.done(request, "/start")
    if refused := await proof.settle(request, form):
        return view.render(request, "start.html", form=refused)
    try:
        made = await ask(request, DeviceController.create_device, data=_FIRST)
    except Problem as error:
        return view.render(request, "start.html", form=form.refuse(error))
    try:
        wanted = KeyIn("First key", _SCOPES)
        key = await ask(request, ApiKeyController.create_key, data=wanted)
    except Problem as error:  # the device is there: its secret is worth more than the key
        refused = form.refuse(error)
        return await show(request, made.id, secret=made.secret, first=True, form=refused)
    return await show(request, made.id, secret=made.secret, key=key, first=True)


@get("/devices/{device_id:str}/connect", **access.person())
async def connect(request: _Request, device_id: FromPath[str]) -> Template:
    """How this device sends."""
    return await show(request, device_id)


@get("/devices/{device_id:str}/advice", **access.person())
async def advice(request: _Request, device_id: FromPath[str]) -> Template:
    """The part of the page that changes while somebody waits."""
    return view.render(request, "advice.html", heard=await _heard(request, device_id))


@post("/devices/{device_id:str}/secret", **access.person())
async def rotate(request: _Request, device_id: FromPath[str]) -> Response[Any]:
    """A new secret, on this page and nowhere else; what used the old one is cut off."""
    made = await ask(request, DeviceController.rotate_secret, device_id=device_id)
    return await show(request, device_id, secret=made.secret)


HANDLERS = (start, begin, connect, advice, rotate)
