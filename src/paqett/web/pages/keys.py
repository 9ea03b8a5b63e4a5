"""`/settings/keys`: API keys, each shown once, when it is made."""

from datetime import timedelta
from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template

from paqett.errors import Invalid, Problem
from paqett.principals import SCOPES
from paqett.web.api_keys import ApiKeyController, KeyIn
from paqett.web.devices import DeviceController
from paqett.web.pages import access, proof, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent

_Request = Request[Any, Any, State]
_PATH = "/settings/keys"
_MOST_DEVICES = 1000
SCOPE_WORDS = {
    "telemetry:read": "Read readings, live too",
    "telemetry:write": "Send readings for devices",
    "devices:read": "See devices and their metrics",
    "devices:write": "Make, change and delete devices",
    "alerts": "Alert rules, alerts and webhooks",
    "export": "Export all data",
    "account:read": "Plan, usage and notices",
}
"""What each scope lets a key do."""
LASTING = (
    ("", "until it is deleted"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"),
    ("365", "a year"),
)  # fmt: skip


async def _show(request: _Request, form: Form | None = None, **more: Any) -> Template:
    page = await ask(request, ApiKeyController.list_keys)
    devices = await ask(request, DeviceController.list_devices, limit=_MOST_DEVICES)
    return view.render(
        request, "keys.html", form=form, keys=page.items, devices=devices.items,
        scopes=[(scope, SCOPE_WORDS[scope]) for scope in SCOPE_WORDS if scope in SCOPES],
        lasting=LASTING, base=request.app.state.services.settings.public_url,
        **{"made": None, **more},
    )  # fmt: skip


@get(_PATH, **access.person())
async def keys(request: _Request) -> Template:
    """The account's keys, and the form for another."""
    return await _show(request)


def _wanted(request: _Request, form: Form) -> KeyIn:
    days = dict(LASTING).get(form.text("lasts"))
    if days is None:
        raise Invalid("Choose how long the key works.", field="lasts")
    lasts = form.text("lasts")
    now = request.app.state.services.clock()
    some = form.text("which") == "some"
    given = {
        "name": form.text("name").strip(),
        "scopes": form.all("scopes"),
        "device_ids": form.all("device_ids") if some else None,
        "expires_at": now + timedelta(days=int(lasts)) if lasts else None,
    }
    if not given["scopes"]:
        raise Invalid("Choose at least one thing the key may do.", field="name")
    if some and not given["device_ids"]:
        raise Invalid("Choose at least one device, or let the key see all.", field="which")
    return convert(given, KeyIn)


@post(_PATH, **access.person())
async def make_key(request: _Request) -> Response[Any]:
    """The key is on this page and nowhere else."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _show(request, refused)
    try:
        made = await ask(request, ApiKeyController.create_key, data=_wanted(request, form))
    except Problem as error:
        return await _show(request, form.refuse(error, expires_at="lasts", device_ids="which"))
    return await _show(request, made=made)


@post(_PATH + "/{key_id:int}/delete", **access.person())
async def delete_key(request: _Request, key_id: FromPath[int]) -> Response[Any]:
    """The next request with it is refused."""
    await ask(request, ApiKeyController.delete_key, key_id=key_id)
    return view.done(request, _PATH, "key_deleted")


HANDLERS = (keys, make_key, delete_key)
