"""`/api/v1/devices`: create, list, read, change, delete, rotate the secret, look at the log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from paqett import db, devices, pauses
from paqett.accounts import Account
from paqett.app import Services
from paqett.db import Connection
from paqett.device_structs import Device, DeviceIn, Name, NewDevice, Seconds, Tags
from paqett.errors import NotFound, Problem
from paqett.lists import Page
from paqett.principals import Principal
from paqett.web.auth import needs, principal_of
from paqett.web.bulk import REQUEST_BODY, read_devices

# PostgreSQL's text holds no NUL
PlainText = Annotated[str | None, QueryParameter(pattern=r"^[^\x00]*$")]
_Request = Request[Any, Any, State]


class DeviceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change; null clears, what is left out stays."""

    thing_name: Name | msgspec.UnsetType = msgspec.UNSET
    friendly_name: Name | msgspec.UnsetType | None = msgspec.UNSET
    mac_address: Name | msgspec.UnsetType | None = msgspec.UNSET
    firmware_version: Name | msgspec.UnsetType | None = msgspec.UNSET
    tags: Tags | msgspec.UnsetType = msgspec.UNSET
    report_interval: Seconds | msgspec.UnsetType | None = msgspec.UNSET
    clock: Literal["device", "server"] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class Secret(msgspec.Struct):
    """A device's new secret, shown this once."""

    secret: str


class KeyLimited(Problem):
    """The key is for certain devices, so it makes no others."""

    status = 403
    code = "key_limited_to_devices"
    title = "Key limited to devices"


def allowed(principal: Principal, device_id: str) -> None:
    """Raises `NotFound` for a device outside the key's allow-list, as if it were not there."""
    if not principal.may_see(device_id):
        raise NotFound(f"There is no device {device_id[:16]}.")


def creator(request: _Request) -> Account:
    """The account to make devices for. Raises `KeyLimited` for a key with an allow-list."""
    principal = principal_of(request)
    if principal.device_ids is not None:
        raise KeyLimited("This API key is limited to certain devices and cannot make new ones.")
    return principal.account


@asynccontextmanager
async def of_device(request: _Request, device_id: str) -> AsyncIterator[tuple[Connection, Account]]:
    """A transaction for a device the key may see. Raises `NotFound` for another."""
    principal = principal_of(request)
    allowed(principal, device_id)
    async with db.transaction(request.app.state.services.pool) as conn:
        yield conn, principal.account


class DeviceController(Controller):
    """Devices of the key's account."""

    path = "/api/v1/devices"
    tags = ["devices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(problems=(409,), **needs("devices:write"))
    async def create_device(self, request: _Request, data: JSONBody[DeviceIn]) -> NewDevice:
        """Make a device; its secret is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = creator(request)
        async with db.transaction(services.pool) as conn:
            return await devices.create(
                conn, account, services.plans[account.plan], **msgspec.structs.asdict(data)
            )

    @post("/bulk", request_body=REQUEST_BODY, problems=(409,), **needs("devices:write"))
    async def create_devices(self, request: _Request) -> Page:
        """Make up to 1,000 devices, all or none; each secret is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = creator(request)
        wanted = read_devices(request.headers.get("content-type", ""), await request.body())
        async with db.transaction(services.pool) as conn:
            plan = services.plans[account.plan]
            return Page(await devices.create_many(conn, account, plan, wanted), None)

    @get(**needs("devices:read"))
    async def list_devices(
        self,
        request: _Request,
        tag: PlainText = None,
        status: FromQuery[Literal["never", "online", "offline", "unknown"] | None] = None,
        freshness: Annotated[
            Literal["never", "fresh", "stale"] | None, QueryParameter(name="data")
        ] = None,
        q: PlainText = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """The account's devices in the order they were made."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        async with db.transaction(services.pool) as conn:
            return await devices.list_devices(
                conn, principal.account, tag=tag, status=status, data=freshness, text=q,
                now=services.clock(), allowed=principal.device_ids, limit=limit, cursor=cursor,
            )  # fmt: skip

    @get("/{device_id:str}", **needs("devices:read"))
    async def get_device(self, request: _Request, device_id: FromPath[str]) -> Device:
        """One device."""
        now = request.app.state.services.clock()
        async with of_device(request, device_id) as (conn, account):
            return await devices.show(conn, account, device_id, now)

    @patch("/{device_id:str}", problems=(409,), **needs("devices:write"))
    async def update_device(
        self, request: _Request, device_id: FromPath[str], data: JSONBody[DeviceChange]
    ) -> Device:
        """Change a device; one that is not `enabled` is paused and cut off, and takes no place."""
        changes = {k: v for k, v in msgspec.structs.asdict(data).items() if v is not msgspec.UNSET}
        services: Services = request.app.state.services
        now = services.clock()
        async with of_device(request, device_id) as (conn, account):
            if "enabled" in changes:
                plan, wanted = services.plans[account.plan], changes.pop("enabled")
                await pauses.enable(conn, account.id, device_id, plan, now, enabled=wanted)
            return await devices.update(conn, account, device_id, changes, now)

    @delete("/{device_id:str}", **needs("devices:write"))
    async def delete_device(self, request: _Request, device_id: FromPath[str]) -> None:
        """Gone and cut off at once; its readings are erased by a job."""
        async with of_device(request, device_id) as (conn, account):
            await devices.delete(conn, account, device_id)

    @post("/{device_id:str}/secret", status_code=200, **needs("devices:write"))
    async def rotate_secret(self, request: _Request, device_id: FromPath[str]) -> Secret:
        """A new secret; a connection that used the old one is closed within a second."""
        async with of_device(request, device_id) as (conn, account):
            return Secret(await devices.rotate_secret(conn, account, device_id))

    @get("/{device_id:str}/events", **needs("devices:read"))
    async def device_events(
        self,
        request: _Request,
        device_id: FromPath[str],
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """The broker's record of the device's connections, newest first."""
        async with of_device(request, device_id) as (conn, account):
            return await devices.events(conn, account, device_id, limit, cursor)
