"""`/alerts/channels`: where notices go besides the list."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template

from paqett.errors import Problem
from paqett.web.channels import ChannelController, ChannelIn
from paqett.web.pages import access, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent

_Request = Request[Any, Any, State]
_PATH = "/alerts/channels"


async def _show(request: _Request, form: Form | None = None, **more: Any) -> Template:
    page = await ask(request, ChannelController.list_channels)
    shown = {"made": None, "rotated": None, **more}
    return view.render(request, "channels.html", form=form, channels=page.items, **shown)


@get(_PATH, **access.person())
async def channels(request: _Request) -> Template:
    """Mail, the webhooks with their newest deliveries, and the form for another."""
    return await _show(request)


@post(_PATH, **access.person())
async def make_webhook(request: _Request) -> Response[Any]:
    """The secret that signs what is sent is on this page and nowhere else."""
    form = await sent(request)
    given = {"url": form.text("url").strip(), "name": form.given("name") or "Webhook"}
    try:
        made = await ask(request, ChannelController.create_channel, data=convert(given, ChannelIn))
    except Problem as error:
        return await _show(request, form.refuse(error))
    return await _show(request, made=made)


@post(_PATH + "/{channel_id:int}/test", **access.person())
async def test_channel(request: _Request, channel_id: FromPath[int]) -> Response[Any]:
    """A paused webhook that takes the test goes on."""
    await ask(request, ChannelController.test_channel, channel_id=channel_id)
    return view.done(request, _PATH, "test_sent")


@post(_PATH + "/{channel_id:int}/secret", **access.person())
async def rotate_secret(request: _Request, channel_id: FromPath[int]) -> Response[Any]:
    """For 24 hours what is sent carries the signatures of both."""
    rotated = await ask(request, ChannelController.rotate_secret, channel_id=channel_id)
    return await _show(request, rotated=rotated)


@post(_PATH + "/{channel_id:int}/delete", **access.person())
async def delete_channel(request: _Request, channel_id: FromPath[int]) -> Response[Any]:
    """What waits for it is not sent."""
    await ask(request, ChannelController.delete_channel, channel_id=channel_id)
    return view.done(request, _PATH, "webhook_deleted")


HANDLERS = (channels, make_webhook, test_channel, rotate_secret, delete_channel)
