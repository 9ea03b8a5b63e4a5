"""`/api/v1/channels`: where notices go besides the list: mail, and webhooks."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from paqett import channels, db, notices, webhooks
from paqett.accounts import Account
from paqett.app import Services
from paqett.channels import MAIL, NewChannel
from paqett.device_structs import Name
from paqett.errors import Conflict
from paqett.lists import Page
from paqett.web.auth import needs, principal_of
from paqett.web.devices import KeyLimited

_NEEDS = needs("alerts")
_Request = Request[Any, Any, State]
Url = Annotated[str, msgspec.Meta(min_length=8, max_length=2000)]


class ChannelIn(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook to make: an https address that takes POST requests."""

    url: Url
    name: Name = "Webhook"


class NewSecret(msgspec.Struct):
    """A webhook's new secret, shown this once; for 24 hours the one before signs beside it."""

    secret: str


class Test(msgspec.Struct):
    """The test is on its way; `delivery` is its id in the channel's log, None for mail."""

    delivery: str | None


class MailStays(Conflict):
    """Mail is no webhook."""

    code = "mail_built_in"
    title = "Mail is built in"


def _account(request: _Request) -> Account:
    """Channels carry what is about the whole account. Raises `KeyLimited`."""
    principal = principal_of(request)
    if principal.device_ids is not None:
        raise KeyLimited("This API key is limited to certain devices; channels are the account's.")
    return principal.account


def _webhook(channel_id: int) -> int:
    if channel_id == MAIL:
        raise MailStays("Mail is built in; PUT /account/notification-preferences switches it off.")
    return channel_id


class ChannelController(Controller):
    """Channels of the account."""

    path = "/api/v1/channels"
    tags = ["alerts"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**_NEEDS)
    async def list_channels(self, request: _Request) -> Page:
        """Mail, which is built in with the id 0, and the webhooks with their newest deliveries."""
        services: Services = request.app.state.services
        account = _account(request)
        async with db.transaction(services.pool) as conn:
            return Page(await channels.list_channels(conn, account.id, account.email), None)

    @post(problems=(409,), **_NEEDS)
    async def create_channel(self, request: _Request, data: JSONBody[ChannelIn]) -> NewChannel:
        """Make a webhook; the secret that signs what is sent is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = _account(request)
        webhooks.check_url(data.url, allow_private=services.settings.webhooks.allow_private)
        async with db.transaction(services.pool) as conn:
            made = await channels.create(conn, account.id, data.name, data.url, services.clock())
            await notices.notify(
                conn, account.id, "channel_created", name=made.name, host=webhooks.host_of(made.url)
            )
        return made

    @delete("/{channel_id:int}", problems=(409,), **_NEEDS)
    async def delete_channel(self, request: _Request, channel_id: FromPath[int]) -> None:
        """Delete a webhook with its log; what waits for it is not sent."""
        services: Services = request.app.state.services
        account = _account(request)
        async with db.transaction(services.pool) as conn:
            await channels.delete(conn, account.id, _webhook(channel_id))

    @post("/{channel_id:int}/secret", status_code=200, problems=(409,), **_NEEDS)
    async def rotate_secret(self, request: _Request, channel_id: FromPath[int]) -> NewSecret:
        """A new secret; for 24 hours what is sent carries the signatures of both."""
        services: Services = request.app.state.services
        account = _account(request)
        async with db.transaction(services.pool) as conn:
            return NewSecret(await channels.rotate_secret(conn, account.id, _webhook(channel_id)))

    @post("/{channel_id:int}/test", status_code=202, **_NEEDS)
    async def test_channel(self, request: _Request, channel_id: FromPath[int]) -> Test:
        """Send a test. A paused webhook that takes it goes on."""
        services: Services = request.app.state.services
        account = _account(request)
        async with db.transaction(services.pool) as conn:
            if channel_id == MAIL:
                await notices.notify(conn, account.id, "channel_test", only_mail=True)
                return Test(None)
            return Test(await channels.test(conn, account.id, channel_id))
