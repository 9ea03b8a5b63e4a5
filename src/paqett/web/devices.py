"""`/api/v1/devices`: create, list, read, change, delete, rotate the secret, look at the log."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from paqett import db, devices
from paqett.app import Services
from paqett.devices import Device, NewDevice, Page
from paqett.errors import NotFound
from paqett.keys import Principal
from paqett.web.auth import needs, principal_of

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]
Tags = Annotated[list[Tag], msgspec.Meta(max_length=50)]
# PostgreSQL's text holds no NUL
PlainText = Annotated[str | None, QueryParameter(pattern=r"^[^\x00]*$")]
_Request = Request[Any, Any, State]


class DeviceIn(msgspec.Struct, forbid_unknown_fields=True):
    """A device to make; `report_interval` in seconds."""

    thing_name: Name
    friendly_name: Name | None = None
    mac_address: Name | None = None
    firmware_version: Name | None = None
    tags: Tags = []
    report_interval: Seconds | None = None
    clock: Literal["device", "server"] = "device"


class DeviceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change; null clears, what is left out stays."""

    thing_name: Name | msgspec.UnsetType = msgspec.UNSET
    friendly_name: Name | msgspec.UnsetType | None = msgspec.UNSET
    mac_address: Name | msgspec.UnsetType | None = msgspec.UNSET
    firmware_version: Name | msgspec.UnsetType | None = msgspec.UNSET
    tags: Tags | msgspec.UnsetType = msgspec.UNSET
    report_interval: Seconds | msgspec.UnsetType | None = msgspec.UNSET
    clock: Literal["device", "server"] | msgspec.UnsetType = msgspec.UNSET


class Secret(msgspec.Struct):
    """A device's new secret, shown this once."""

    secret: str


def allowed(principal: Principal, device_id: str) -> None:
    """Raises `NotFound` for a device outside the key's allow-list, as if it were not there."""
    if not principal.may_see(device_id):
        raise NotFound(f"There is no device {device_id[:16]}.")


class DeviceController(Controller):
    """Devices of the key's account."""

    path = "/api/v1/devices"
    tags = ["devices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(**needs("devices:write"))
    async def create_device(self, request: _Request, data: JSONBody[DeviceIn]) -> NewDevice:
        """Make a device; its secret is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = principal_of(request).account
        plan = services.plans[account.plan]
        async with db.transaction(services.pool) as conn:
            return await devices.create(conn, account, plan, **msgspec.structs.asdict(data))

    @get(**needs("devices:read"))
    async def list_devices(
        self,
        request: _Request,
        tag: PlainText = None,
        status: FromQuery[Literal["never", "online", "offline", "unknown"] | None] = None,
        q: PlainText = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """The account's devices in the order they were made."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        async with db.transaction(services.pool) as conn:
            return await devices.list_devices(
                conn, principal.account, tag=tag, status=status, text=q,
                allowed=principal.device_ids, limit=limit, cursor=cursor,
            )  # fmt: skip

    @get("/{device_id:str}", **needs("devices:read"))
    async def get_device(self, request: _Request, device_id: FromPath[str]) -> Device:
        """One device."""
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(request.app.state.services.pool) as conn:
            return await devices.get(conn, principal.account, device_id)

    @patch("/{device_id:str}", **needs("devices:write"))
    async def update_device(
        self, request: _Request, device_id: FromPath[str], data: JSONBody[DeviceChange]
    ) -> Device:
        """Change a device."""
        principal = principal_of(request)
        allowed(principal, device_id)
        changes = {k: v for k, v in msgspec.structs.asdict(data).items() if v is not msgspec.UNSET}
        async with db.transaction(request.app.state.services.pool) as conn:
            return await devices.update(conn, principal.account, device_id, changes)

    @delete("/{device_id:str}", **needs("devices:write"))
    async def delete_device(self, request: _Request, device_id: FromPath[str]) -> None:
        """Gone and cut off at once; its readings are erased by a job."""
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(request.app.state.services.pool) as conn:
            await devices.delete(conn, principal.account, device_id)

    @post("/{device_id:str}/secret", status_code=200, **needs("devices:write"))
    async def rotate_secret(self, request: _Request, device_id: FromPath[str]) -> Secret:
        """A new secret; a connection that used the old one is closed within a second."""
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(request.app.state.services.pool) as conn:
            return Secret(await devices.rotate_secret(conn, principal.account, device_id))

    @get("/{device_id:str}/events", **needs("devices:read"))
    async def device_events(
        self,
        request: _Request,
        device_id: FromPath[str],
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """The broker's record of the device's connections, newest first."""
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(request.app.state.services.pool) as conn:
            return await devices.events(conn, principal.account, device_id, limit, cursor)

    @get("/{device_id:str}/metrics", **needs("devices:read"))
    async def device_metrics(self, request: _Request, device_id: FromPath[str]) -> Page:
        """The device's metrics."""
        principal = principal_of(request)
        allowed(principal, device_id)
        async with db.transaction(request.app.state.services.pool) as conn:
            return await devices.metrics(conn, principal.account, device_id)
