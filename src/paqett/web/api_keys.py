"""`/api/v1/api-keys`: keys for programs, each with its scopes."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from paqett import db, keys, notices, throttle
from paqett.app import Services
from paqett.device_structs import Name
from paqett.errors import Invalid
from paqett.keys import NewKey
from paqett.lists import Page
from paqett.web import auth

_Request = Request[Any, Any, State]
_MOST_DEVICES = 1000
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class KeyIn(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make; without `device_ids` it is for every device, without `expires_at` for good."""

    name: Name
    scopes: list[str]
    device_ids: Annotated[list[str], msgspec.Meta(max_length=_MOST_DEVICES)] | None = None
    expires_at: Moment | None = None


class ApiKeyController(Controller):
    """Made and deleted by signed-in people alone: a key makes no keys."""

    path = "/api/v1/api-keys"
    tags = ["keys"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**auth.needs_session())
    async def list_keys(self, request: _Request) -> Page:
        """The account's keys with their last use; never the keys themselves."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            return Page(await keys.list_keys(conn, auth.principal_of(request).account.id), None)

    @post(status_code=201, problems=(409,), **auth.needs_session(recent=True))
    async def create_key(self, request: _Request, data: JSONBody[KeyIn]) -> NewKey:
        """Make a key; it is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        if data.expires_at is not None and data.expires_at <= services.clock():
            raise Invalid("expires_at lies in the past.", field="expires_at")
        async with db.transaction(services.pool) as conn:
            await throttle.hit(conn, throttle.KEYS_ACCOUNT, str(account.id), services.clock())
            made = await keys.create(
                conn, account.id, data.name, data.scopes, data.device_ids, data.expires_at
            )
            await notices.notify(conn, account.id, "key_created", name=made.name, hint=made.hint)
        return made

    @delete("/{key_id:int}", status_code=204, **auth.needs_session())
    async def delete_key(self, request: _Request, key_id: FromPath[int]) -> None:
        """The next request with it is refused."""
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        async with db.transaction(services.pool) as conn:
            name = await keys.delete(conn, account.id, key_id)
            await notices.notify(conn, account.id, "key_deleted", name=name)
