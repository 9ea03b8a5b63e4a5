"""Receipts: what was erased, how many rows of each table and when; nothing that names a person."""

import hashlib
import secrets
from datetime import datetime
from typing import Any, Literal

import msgspec

from paqett.db import Connection
from paqett.errors import NotFound
from paqett.sqlfiles import query

_LONGEST = 100


class Receipt(msgspec.Struct, frozen=True):
    """An account's erasure, before and after it was done.

    `erased` are rows by table, and files by their kind; `total` is their sum. `kept` says what a
    processor must keep by law. `id` is random. `open` is an account that nobody wants deleted.
    """

    id: str | None
    status: Literal["open", "closing", "erasing", "erased"]
    asked_at: datetime | None
    due_at: datetime | None
    finished_at: datetime | None
    erased: dict[str, int]
    total: int
    kept: str | None


_NONE = Receipt(None, "open", None, None, None, {}, 0, None)


async def issue(conn: Connection, erasure_id: object) -> str:
    """One more token that shows the receipt; earlier ones stay good."""
    token = secrets.token_urlsafe(32)
    await conn.execute(query("add_receipt_token"), {"erasure": erasure_id, "hash": _hash(token)})
    return token


async def of_account(conn: Connection, account_id: int) -> Receipt:
    """How the deletion of the account stands, also where none was asked for."""
    values = {"account": account_id}
    row = await (await conn.execute(query("erasure_of_account"), values)).fetchone()
    return _NONE if row is None else from_row(row)


async def by_token(conn: Connection, token: str) -> Receipt:
    """The receipt a link shows, for as long as there is one. Raises `NotFound`."""
    values = {"hash": _hash(token[:_LONGEST])}
    row = await (await conn.execute(query("unscoped_receipt"), values)).fetchone()
    if row is None:
        raise NotFound("This link shows no receipt: the deletion was undone, or it is not ours.")
    return from_row(row)


def from_row(row: dict[str, Any]) -> Receipt:
    """A row of `erasure` as its receipt."""
    begun, finished = row["begun_at"], row["finished_at"]
    status = "erased" if finished else "erasing" if begun else "closing"
    erased = {name: row["erased"][name] for name in sorted(row["erased"])}
    return msgspec.convert(
        {**row, "id": str(row["id"]), "status": status, "erased": erased,
         "total": sum(erased.values())},
        Receipt,
    )  # fmt: skip


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
