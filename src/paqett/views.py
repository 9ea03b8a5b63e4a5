"""Views: charts that somebody named and kept, some of them pinned to the overview."""

from datetime import datetime
from typing import Any

import msgspec
from psycopg import errors

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Conflict, LimitReached, NotFound
from paqett.sqlfiles import query

MOST = 200
"""An account has no more views than this."""


class View(msgspec.Struct, frozen=True):
    """`shown` is the query string of its page; a pinned one stands on the overview."""

    id: int
    name: str
    shown: str
    pinned: bool
    created_at: datetime
    changed_at: datetime


def _not_found(view_id: int) -> NotFound:
    return NotFound(f"There is no view {view_id}.")


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a view called {name} already.", extra={"field": "name"})


async def list_views(conn: Connection, account: Account, *, pinned: bool = False) -> list[View]:
    """The account's views by name, or those that are pinned."""
    values = {"account": account.id, "pinned": pinned}
    rows = await (await conn.execute(query("list_views"), values)).fetchall()
    return [msgspec.convert(row, View) for row in rows]


async def get(conn: Connection, account: Account, view_id: int) -> View:
    """One view. Raises `NotFound`."""
    values = {"account": account.id, "id": view_id}
    row = await (await conn.execute(query("get_view"), values)).fetchone()
    if row is None:
        raise _not_found(view_id)
    return msgspec.convert(row, View)


async def create(
    conn: Connection, account: Account, name: str, shown: str, now: datetime, *, pinned: bool
) -> View:
    """A new view. Raises `Conflict` for a name in use, `LimitReached` where there are 200."""
    await conn.execute(query("lock_views"), {"account": account.id})
    if len(await list_views(conn, account)) >= MOST:
        raise LimitReached(
            f"There are {MOST} views, which is the most. Delete one first.", extra={"limit": MOST}
        )
    values = {"account": account.id, "name": name, "shown": shown, "pinned": pinned, "now": now}
    try:
        row = await (await conn.execute(query("create_view"), values)).fetchone()
    except errors.UniqueViolation:
        raise _taken(name) from None
    return msgspec.convert(row, View)


async def update(
    conn: Connection, account: Account, view_id: int, now: datetime, **changes: Any
) -> View:
    """Change `name`, `shown` or `pinned`. Raises `NotFound`, and `Conflict` for a name in use."""
    given = {"name": None, "shown": None, "pinned": None, **changes}
    values = {"account": account.id, "id": view_id, "now": now, **given}
    try:
        row = await (await conn.execute(query("update_view"), values)).fetchone()
    except errors.UniqueViolation:
        raise _taken(str(changes.get("name"))) from None
    if row is None:
        raise _not_found(view_id)
    return msgspec.convert(row, View)


async def delete(conn: Connection, account: Account, view_id: int) -> None:
    """Gone; what it showed stays. Raises `NotFound`."""
    values = {"account": account.id, "id": view_id}
    if await (await conn.execute(query("delete_view"), values)).fetchone() is None:
        raise _not_found(view_id)
