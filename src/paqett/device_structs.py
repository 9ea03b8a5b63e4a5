"""A device as people give it and see it: its metadata and its status."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

# `$` alone would let a newline at the end through
PRINTABLE = r"^[^\x00-\x1f\x7f]*$(?!\n)"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]
Tags = Annotated[list[Tag], msgspec.Meta(max_length=50)]


class ConnectionStatus(msgspec.Struct, frozen=True):
    """never, online, offline, or unknown while the broker's record is missing."""

    status: str
    since: datetime | None
    reason: str | None
    ip: str | None


class DataStatus(msgspec.Struct, frozen=True):
    """never, fresh or stale: no fresh reading for three times `report_interval` (s), or 3 h.

    `learned` where the interval was not set but found from 48 hours of fresh readings.
    """

    status: str
    last_at: datetime | None
    report_interval: float | None
    learned: bool


class Stored(msgspec.Struct, frozen=True):
    """What is stored of a device, without its status.

    `thing_name` is the user's own identifier of it; `report_interval` is in seconds; `attributes`
    are what the device says of itself. `secret_used_at` is when its secret was last accepted, over
    MQTT or HTTP (to the minute), and `secret_used_ip` from where. A device is paused, and cut off,
    from `paused_at` on where the account's plan has room for its older devices only, or where it is
    not `enabled`, which its owner decides.
    """

    id: str
    thing_name: str
    friendly_name: str | None
    mac_address: str | None
    firmware_version: str | None
    tags: list[str]
    report_interval: int | None
    clock: str
    attributes: dict[str, Any]
    created_at: datetime
    paused_at: datetime | None
    enabled: bool
    secret_used_at: datetime | None
    secret_used_ip: str | None


class Device(Stored, frozen=True):
    """A device and its status at one moment."""

    connection: ConnectionStatus
    data: DataStatus


class NewDevice(Device, frozen=True):
    """A device just made; `secret` is shown this once."""

    secret: str


class DeviceIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device to make; `report_interval` in seconds."""

    thing_name: Name
    friendly_name: Name | None = None
    mac_address: Name | None = None
    firmware_version: Name | None = None
    tags: Tags = []
    report_interval: Seconds | None = None
    clock: Literal["device", "server"] = "device"


class Event(msgspec.Struct, frozen=True):
    """A connection event from the broker's log."""

    time: datetime
    kind: str
    reason: str | None
    ip: str | None


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """A row's columns under the names of `Stored`."""
    ip = row["secret_used_ip"]
    return {
        **row,
        "report_interval": row["report_interval_s"],
        "secret_used_ip": None if ip is None else str(ip),
    }


def status_of(row: dict[str, Any]) -> tuple[ConnectionStatus, DataStatus]:
    """What the SQL function `device_status` found for a device."""
    ip = row["connection_ip"]
    connection = ConnectionStatus(
        row["shown_connection"],
        row["shown_since"],
        row["shown_reason"],
        None if ip is None else str(ip),
    )
    data = DataStatus(
        row["data_status"], row["data_last_at"], row["data_interval"], row["data_learned"]
    )
    return connection, data


def shown(row: dict[str, Any]) -> Device:
    """A device's row together with its status's."""
    connection, data = status_of(row)
    return msgspec.convert({**stored(row), "connection": connection, "data": data}, Device)


def new_device(row: dict[str, Any], secret: str) -> NewDevice:
    """A row just made: nothing has been heard of it yet."""
    never = {
        "connection": ConnectionStatus("never", None, None, None),
        "data": DataStatus("never", None, row["report_interval_s"], False),
    }
    return msgspec.convert({**stored(row), **never, "secret": secret}, NewDevice)
