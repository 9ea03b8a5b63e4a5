"""Accounts: the unit of isolation, billing, export and erasure."""

from datetime import datetime

import msgspec

from paqett.db import Connection
from paqett.errors import Conflict, NotFound
from paqett.plans import Plan
from paqett.sqlfiles import query


class Account(msgspec.Struct, frozen=True):
    """`tier` takes new readings; `moving_from` still holds some while a move is open.

    Nothing older than `readable_from` is ever read.
    """

    id: int
    email: str
    plan: str
    tier: str
    moving_from: str | None
    readable_from: datetime


class Listed(msgspec.Struct, frozen=True):
    """A line of the operator's list."""

    id: int
    email: str
    plan: str
    tier: str
    devices: int


async def create(conn: Connection, email: str, plan: Plan) -> Account:
    """A new account on `plan`. Raises `Conflict` where the address has one."""
    values = {"email": email, "plan": plan.name, "tier": plan.tier}
    row = await (await conn.execute(query("create_account"), values)).fetchone()
    if row is None:
        raise Conflict(f"There is an account with the address {email} already.")
    return msgspec.convert(row, Account)


async def find(conn: Connection, account: str) -> Account:
    """The account with this number or address. Raises `NotFound`."""
    row = await (await conn.execute(query("find_account"), {"account": account})).fetchone()
    if row is None:
        raise NotFound(f"There is no account {account}.")
    return msgspec.convert(row, Account)


async def list_all(conn: Connection) -> list[Listed]:
    """Every account, for the operator."""
    rows = await (await conn.execute(query("unscoped_accounts"))).fetchall()
    return [msgspec.convert(row, Listed) for row in rows]
