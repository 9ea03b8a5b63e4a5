"""Devices of an account: their metadata, secrets and connection status."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Any

import msgspec
from psycopg import errors

from paqett import jobs
from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Conflict, Invalid, LimitReached, NotFound
from paqett.mqtt.credentials import new_device_id, new_secret, verifier
from paqett.plans import Plan
from paqett.sqlfiles import query

_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_NUMBER = re.compile(r"[0-9]{1,18}")


class ConnectionStatus(msgspec.Struct, frozen=True):
    """never, online, offline or unknown, from the broker's record."""

    status: str
    since: datetime | None
    reason: str | None
    ip: str | None


class Device(msgspec.Struct, frozen=True):
    """`thing_name` is the user's own identifier of it; `report_interval` is in seconds."""

    id: str
    thing_name: str
    friendly_name: str | None
    mac_address: str | None
    firmware_version: str | None
    tags: list[str]
    report_interval: int | None
    clock: str
    created_at: datetime
    connection: ConnectionStatus


class NewDevice(Device, frozen=True):
    """A device just made; `secret` is shown this once."""

    secret: str = ""


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next_cursor` is None on the last page."""

    items: list[Any]
    next_cursor: str | None


class Metric(msgspec.Struct, frozen=True):
    """A series of the device."""

    metric: str
    kind: str
    label: str | None
    unit: str | None
    created_at: datetime


class Event(msgspec.Struct, frozen=True):
    """A connection event from the broker's log."""

    time: datetime
    kind: str
    reason: str | None
    ip: str | None


def _values(row: dict[str, Any]) -> dict[str, Any]:
    ip = row["connection_ip"]
    return {
        **row,
        "report_interval": row["report_interval_s"],
        "connection": {
            "status": row["connection"],
            "since": row["connection_since"],
            "reason": row["connection_reason"],
            "ip": None if ip is None else str(ip),
        },
    }


def _device(row: dict[str, Any]) -> Device:
    return msgspec.convert(_values(row), Device)


def _not_found(device_id: str) -> NotFound:
    return NotFound(f"There is no device {device_id[:16]}.")


async def create(
    conn: Connection,
    account: Account,
    plan: Plan,
    *,
    thing_name: str,
    friendly_name: str | None = None,
    mac_address: str | None = None,
    firmware_version: str | None = None,
    tags: list[str] | None = None,
    report_interval: int | None = None,
    clock: str = "device",
) -> NewDevice:
    """A new device with its secret.

    Raises `LimitReached` at the plan's number of devices, `Conflict` for a thing_name in use,
    `Invalid` for a MAC address that is none.
    """
    await conn.execute(query("lock_device_count"), {"account": account.id})
    row = await (await conn.execute(query("count_devices"), {"account": account.id})).fetchone()
    if plan.devices is not None and row and row["devices"] >= plan.devices:
        raise LimitReached(
            f"The plan {plan.name} allows {plan.devices} devices.", extra={"limit": plan.devices}
        )
    secret = new_secret()
    values = {
        "id": new_device_id(),
        "account": account.id,
        "thing_name": thing_name,
        "friendly_name": friendly_name,
        "mac_address": mac_address,
        "firmware_version": firmware_version,
        "tags": tags or [],
        "report_interval": report_interval,
        "clock": clock,
        "verifier": verifier(secret),
    }
    made = await _write(conn, "create_device", values)
    if made is None:
        raise Conflict(f"There is a device called {thing_name} already.")
    return msgspec.convert({**_values(made), "secret": secret}, NewDevice)


async def _write(conn: Connection, name: str, values: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return await (await conn.execute(query(name), values)).fetchone()
    except errors.UniqueViolation:
        raise Conflict(f"There is a device called {values['thing_name']} already.") from None
    except (errors.InvalidTextRepresentation, errors.NumericValueOutOfRange):
        raise Invalid("mac_address must be like 08:00:2b:01:02:03.", field="mac_address") from None


async def get(conn: Connection, account: Account, device_id: str) -> Device:
    """One device. Raises `NotFound`."""
    return await _get(conn, account, device_id, "get_device")


async def _get(conn: Connection, account: Account, device_id: str, name: str) -> Device:
    if not _ID.fullmatch(device_id):
        raise _not_found(device_id)
    values = {"account": account.id, "id": device_id}
    row = await (await conn.execute(query(name), values)).fetchone()
    if row is None:
        raise _not_found(device_id)
    return _device(row)


async def list_devices(
    conn: Connection,
    account: Account,
    *,
    tag: str | None = None,
    status: str | None = None,
    text: str | None = None,
    allowed: frozenset[str] | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """A page of devices in the order they were made. Raises `Invalid` for a foreign cursor."""
    after_time, after_id = _read_cursor(cursor, _ID)
    values = {
        "account": account.id,
        "allowed": None if allowed is None else list(allowed),
        "tag": tag,
        "status": status,
        "text": text,
        "after_time": after_time,
        "after_id": after_id,
        "limit": limit + 1,
    }
    rows = await (await conn.execute(query("list_devices"), values)).fetchall()
    items = [_device(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return Page(items, _write_cursor(last.created_at, last.id) if last else None)


async def ids(
    conn: Connection, account: Account, *, tag: str | None, allowed: frozenset[str] | None
) -> list[str]:
    """The ids of every device, or of those with `tag`, in the order they were made."""
    values = {
        "account": account.id,
        "allowed": None if allowed is None else list(allowed),
        "tag": tag,
    }
    rows = await (await conn.execute(query("device_ids"), values)).fetchall()
    return [row["id"] for row in rows]


def _write_cursor(time: datetime, key: str | int) -> str:
    return urlsafe_b64encode(f"{time.isoformat()} {key}".encode()).decode()


def _read_cursor(cursor: str | None, form: re.Pattern[str]) -> tuple[datetime | None, str | None]:
    """The time and the key after which the page begins. Raises `Invalid`."""
    if cursor is None:
        return None, None
    try:
        time, key = urlsafe_b64decode(cursor).decode().split(" ")
        if form.fullmatch(key):
            return datetime.fromisoformat(time), key
    except ValueError:
        pass
    raise Invalid("The cursor is not one of ours.", field="cursor")


async def update(
    conn: Connection, account: Account, device_id: str, changes: dict[str, Any]
) -> Device:
    """Change the named members; None clears. Raises as `create` does, and `NotFound`."""
    await get(conn, account, device_id)
    if changes.get("clock"):
        # before the row's lock: it takes the directory's, and so does a deletion before the row's
        clock = {"account": account.id, "id": device_id, "clock": changes["clock"]}
        await conn.execute(query("set_device_clock"), clock)
    before = await _get(conn, account, device_id, "get_device_for_change")
    values = {
        "account": account.id,
        "id": device_id,
        "thing_name": before.thing_name,
        "friendly_name": before.friendly_name,
        "mac_address": before.mac_address,
        "firmware_version": before.firmware_version,
        "tags": before.tags,
        "report_interval": before.report_interval,
    } | {name: value for name, value in changes.items() if name != "clock"}
    if await _write(conn, "update_device", values) is None:
        raise _not_found(device_id)
    return await get(conn, account, device_id)


async def delete(conn: Connection, account: Account, device_id: str) -> None:
    """Gone and cut off at once; its readings are erased by a job. Raises `NotFound`."""
    await get(conn, account, device_id)
    values = {"account": account.id, "id": device_id}
    await conn.execute(query("lock_directory"))
    series = await (await conn.execute(query("device_series"), values)).fetchall()
    if await (await conn.execute(query("delete_device"), values)).fetchone() is None:
        raise _not_found(device_id)
    if series:
        ids = [row["id"] for row in series]
        await jobs.defer(
            conn, "erase_series", lock=f"erase {device_id}", account_id=account.id, series_ids=ids
        )


async def rotate_secret(conn: Connection, account: Account, device_id: str) -> str:
    """The new secret; the broker cuts off the old one within a second. Raises `NotFound`."""
    await get(conn, account, device_id)
    secret = new_secret()
    values = {"account": account.id, "id": device_id, "verifier": verifier(secret)}
    await conn.execute(query("set_verifier"), values)
    return secret


async def events(
    conn: Connection, account: Account, device_id: str, limit: int, cursor: str | None = None
) -> Page:
    """A page of connection events, newest first. Raises `NotFound`, `Invalid` for the cursor."""
    after_time, after_id = _read_cursor(cursor, _NUMBER)
    await get(conn, account, device_id)
    values = {
        "account": account.id,
        "id": device_id,
        "after_time": after_time,
        "after_id": None if after_id is None else int(after_id),
        "limit": limit + 1,
    }
    rows = await (await conn.execute(query("device_events"), values)).fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        [msgspec.convert(row, Event) for row in rows[:limit]],
        _write_cursor(last["time"], last["id"]) if last else None,
    )


async def metrics(conn: Connection, account: Account, device_id: str) -> Page:
    """The device's metrics by name. Raises `NotFound`."""
    await get(conn, account, device_id)
    values = {"account": account.id, "id": device_id}
    rows = await (await conn.execute(query("device_series"), values)).fetchall()
    return Page([msgspec.convert(row, Metric) for row in rows], None)
