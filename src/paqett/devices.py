"""Devices of an account: made, listed, changed, deleted."""

import re
from datetime import datetime
from typing import Any, Literal

import msgspec
from psycopg import errors
from psycopg.types.json import Jsonb

from paqett import jobs, lists, mac
from paqett.accounts import Account
from paqett.db import Connection
from paqett.device_structs import (
    Device,
    DeviceIn,
    Event,
    NewDevice,
    Stored,
    new_device,
    shown,
    stored,
)
from paqett.errors import Conflict, Invalid, LimitReached, NotFound, Problem
from paqett.lists import Page
from paqett.mqtt.credentials import new_device_id, new_secret, verifier
from paqett.plans import Plan
from paqett.sqlfiles import query

_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_NUMBER = re.compile(r"[0-9]{1,18}")


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
    clock: Literal["device", "server"] = "device",
) -> NewDevice:
    """A new device with its secret.

    Raises `LimitReached` at the plan's number of devices, `Conflict` for a thing_name in use,
    `Invalid` for a MAC address that is none.
    """
    wanted = DeviceIn(
        thing_name, friendly_name, mac_address, firmware_version, tags or [], report_interval, clock
    )
    try:
        return (await create_many(conn, account, plan, [wanted]))[0]
    except Problem as refused:
        refused.extra.pop("index", None)
        raise


async def count(conn: Connection, account: Account) -> int:
    """How many devices the account has."""
    row = await (await conn.execute(query("count_devices"), {"account": account.id})).fetchone()
    return int(row["devices"]) if row else 0


async def create_many(
    conn: Connection, account: Account, plan: Plan, wanted: list[DeviceIn]
) -> list[NewDevice]:
    """New devices with their secrets, all or none, in the order of `wanted`.

    Raises as `create` does; the problem's `index` names the first wrong one, counted from 0.
    """
    _check(wanted)
    await conn.execute(query("lock_device_count"), {"account": account.id})
    present = await count(conn, account)
    if plan.devices is not None and present + len(wanted) > plan.devices:
        raise LimitReached(
            f"The plan {plan.name} allows {plan.devices} devices; the account has {present}.",
            extra={"limit": plan.devices, "index": max(0, plan.devices - present)},
        )
    secrets = [new_secret() for _ in wanted]
    rows = [
        {**msgspec.structs.asdict(device), "id": new_device_id(), "verifier": verifier(secret)}
        for device, secret in zip(wanted, secrets, strict=True)
    ]
    found = await conn.execute(
        query("create_devices"), {"account": account.id, "devices": Jsonb(rows)}
    )
    made = {row["thing_name"]: row for row in await found.fetchall()}
    for index, device in enumerate(wanted):
        if device.thing_name not in made:
            raise _taken(device.thing_name, index=index)
    return [
        new_device(made[device.thing_name], secret)
        for device, secret in zip(wanted, secrets, strict=True)
    ]


def _check(wanted: list[DeviceIn]) -> None:
    """Raises `Invalid` for a wrong MAC address, `Conflict` for a thing_name given twice."""
    names: set[str] = set()
    for index, device in enumerate(wanted):
        try:
            _check_mac(device.mac_address)
        except Invalid as wrong:
            wrong.extra["index"] = index
            raise
        if device.thing_name in names:
            raise Conflict(
                f"The thing_name {device.thing_name} is given twice.",
                extra={"field": "thing_name", "index": index},
            )
        names.add(device.thing_name)


def _check_mac(address: str | None) -> None:
    if address is not None and not mac.is_mac(address):
        raise Invalid(mac.WRONG, field="mac_address")


def _taken(thing_name: str, **more: Any) -> Conflict:
    return Conflict(
        f"There is a device called {thing_name} already.", extra={"field": "thing_name", **more}
    )


async def get(conn: Connection, account: Account, device_id: str) -> Stored:
    """One device as it is stored. Raises `NotFound`."""
    return msgspec.convert(stored(await _row(conn, account, device_id, "get_device")), Stored)


async def show(conn: Connection, account: Account, device_id: str, now: datetime) -> Device:
    """One device with its status at `now`. Raises `NotFound`."""
    return shown(await _row(conn, account, device_id, "show_device", now=now))


async def _row(
    conn: Connection, account: Account, device_id: str, name: str, **more: Any
) -> dict[str, Any]:
    if not _ID.fullmatch(device_id):
        raise _not_found(device_id)
    values = {"account": account.id, "id": device_id, **more}
    row = await (await conn.execute(query(name), values)).fetchone()
    if row is None:
        raise _not_found(device_id)
    return row


async def list_devices(
    conn: Connection,
    account: Account,
    *,
    tag: str | None = None,
    status: str | None = None,
    data: str | None = None,
    text: str | None = None,
    now: datetime | None = None,
    allowed: frozenset[str] | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """A page of devices in the order they were made, with their status at `now`.

    Without `now` it is the database's. Raises `Invalid` for a foreign cursor.
    """
    after_time, after_id = lists.read_time(cursor, _ID)
    values = {
        "account": account.id,
        "allowed": None if allowed is None else list(allowed),
        "tag": tag,
        "status": status,
        "data": data,
        "text": text,
        "now": now,
        "after_time": after_time,
        "after_id": after_id,
        "limit": limit + 1,
    }
    rows = await (await conn.execute(query("list_devices"), values)).fetchall()
    items = [shown(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return Page(items, lists.write_time(last.created_at, last.id) if last else None)


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


async def update(
    conn: Connection, account: Account, device_id: str, changes: dict[str, Any], now: datetime
) -> Device:
    """Change the named members; None clears. Raises as `create` does, and `NotFound`."""
    _check_mac(changes.get("mac_address"))
    await get(conn, account, device_id)
    if changes.get("clock"):
        # before the row's lock: it takes the directory's, and so does a deletion before the row's
        clock = {"account": account.id, "id": device_id, "clock": changes["clock"]}
        await conn.execute(query("set_device_clock"), clock)
    before = stored(await _row(conn, account, device_id, "get_device_for_change"))
    given = {name: value for name, value in changes.items() if name != "clock"}
    try:
        await conn.execute(query("update_device"), {**before, "account": account.id, **given})
    except errors.UniqueViolation:
        raise _taken(given["thing_name"]) from None
    return await show(conn, account, device_id, now)


async def delete(conn: Connection, account: Account, device_id: str) -> None:
    """Gone and cut off at once; everything of it is erased by a job. Raises `NotFound`.

    Its place goes to the oldest device that was paused.
    """
    await get(conn, account, device_id)
    values = {"account": account.id, "id": device_id}
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_device_count"), {"account": account.id})
    series = await (await conn.execute(query("device_series"), values)).fetchall()
    gone = await (await conn.execute(query("delete_device"), values)).fetchone()
    if gone is None:
        raise _not_found(device_id)
    if gone["paused_at"] is None:
        await conn.execute(query("resume_oldest"), {"account": account.id})
    wanted = {**values, "series": [row["id"] for row in series]}
    row = await (await conn.execute(query("erase_device_later"), wanted)).fetchone()
    if row is not None:
        await jobs.defer(conn, "erase", lock=f"erase {row['id']}", erasure=str(row["id"]))


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
    after_time, after_id = lists.read_time(cursor, _NUMBER)
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
        lists.write_time(last["time"], last["id"]) if last else None,
    )
