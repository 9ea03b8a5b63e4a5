"""Devices as people look for them: searched, sorted and counted, a page with a number at a time."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.device_structs import Device, shown
from paqett.sqlfiles import query

A_PAGE = 25
_MOST_TAGS = 200
State = Literal["", "online", "offline", "fresh", "stale", "never", "paused"]
Sort = Literal["created", "new", "name", "-name", "data", "-data"]


class Found(msgspec.Struct, frozen=True):
    """A page of devices; `in_all` is how many there are on every page together."""

    items: list[Device]
    in_all: int
    number: int
    pages: int


class Counts(msgspec.Struct, frozen=True):
    """Devices by how they stand; one may be counted in several."""

    devices: int
    online: int
    fresh: int
    stale: int
    never: int
    paused: int


async def find(
    conn: Connection, account: Account, now: datetime, *, text: str | None = None,
    tag: str | None = None, state: State = "", sort: Sort = "created", number: int = 1,
) -> Found:  # fmt: skip
    """Page `number` (from 1) of the devices; the first where there are not so many."""
    values: dict[str, Any] = {
        "account": account.id, "now": now, "text": text, "tag": tag, "state": state, "sort": sort,
        "limit": A_PAGE, "offset": A_PAGE * (number - 1),
    }  # fmt: skip
    rows = await (await conn.execute(query("device_list"), values)).fetchall()
    if not rows and number > 1:
        return await find(conn, account, now, text=text, tag=tag, state=state, sort=sort, number=1)
    in_all = rows[0]["in_all"] if rows else 0
    pages = max(1, -(-in_all // A_PAGE))
    return Found([shown(row) for row in rows], in_all, number, pages)


async def counts(conn: Connection, account: Account, now: datetime) -> Counts:
    """How the account's devices stand at `now`."""
    values = {"account": account.id, "now": now}
    row = await (await conn.execute(query("device_counts"), values)).fetchone()
    return msgspec.convert(row, Counts)


async def tags(conn: Connection, account: Account) -> list[str]:
    """The tags there are, at most 200."""
    values = {"account": account.id, "limit": _MOST_TAGS}
    rows = await (await conn.execute(query("device_tags"), values)).fetchall()
    return [row["tag"] for row in rows]
