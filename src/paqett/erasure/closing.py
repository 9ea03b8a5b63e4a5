"""An account that closes: asked for, seen, undone. Nothing of it is erased yet."""

from datetime import datetime
from typing import Literal

import msgspec

from paqett import consequences, grafana, jobs, mails, notices, sessions, tokens
from paqett.billing import sync as billing
from paqett.db import Connection
from paqett.erasure import receipts
from paqett.errors import Conflict, NotFound
from paqett.sqlfiles import query

By = Literal["person", "operator", "restore"]


class Closing(msgspec.Struct, frozen=True):
    """What has been asked for. The account is erased at `erased_at`, and until then can be undone.

    `receipt_token` shows the receipt, also afterwards; it is told this once.
    """

    status: Literal["closing", "erasing"]
    asked_at: datetime
    erased_at: datetime
    can_be_undone: bool
    at_once: list[str]
    then: list[str]
    until_then: list[str]
    receipt_token: str


class Undone(msgspec.Struct, frozen=True):
    """The account is open again."""

    status: Literal["open"]
    comes_back: list[str]
    stays_gone: list[str]


async def ask(
    conn: Connection, account_id: int, by: By, now: datetime, *, at_once: bool
) -> Closing:
    """Close the account, and have it erased after 7 days or now.

    Sessions, keys, the SQL login and streams end with the caller's transaction; devices are cut off
    by the broker and refused by every flush. Asked again, it only comes sooner. Raises `NotFound`.
    """
    # in the order of everybody who changes an account: the directory, then its row
    await conn.execute(query("lock_directory"))
    values = {"account": account_id}
    row = await (await conn.execute(query("lock_closing_account"), values)).fetchone()
    if row is None:
        raise NotFound("The account is gone.")
    fresh = row["closing_at"] is None
    due = now if at_once or row["erasing"] else now + consequences.UNDO
    if fresh:
        await conn.execute(query("set_closing"), {**values, "at": now})
    wanted = {**values, "by": by, "now": now, "due": due, "queued": now if at_once else None}
    asked = await (await conn.execute(query("ask_erasure"), wanted)).fetchone()
    if asked is None:
        raise NotFound("The account is gone.")
    await _cut_off(conn, account_id, now)
    if fresh:
        await jobs.defer(conn, "clear_broker", account_id=account_id)
        await _follow(conn, account_id)
    if at_once:
        await later(conn, asked["id"])
    else:
        await mails.defer(conn, "account_closing", account_id)
    token = await receipts.issue(conn, asked["id"])
    return _closing(asked, token, undone=not at_once and not row["erasing"])


async def _cut_off(conn: Connection, account_id: int, now: datetime) -> None:
    """What is revoked for good, also where the deletion is undone."""
    values = {"account": account_id}
    await sessions.end_all(conn, account_id, now)
    await conn.execute(query("revoke_keys"), values)
    await conn.execute(query("end_streams"), values)
    await grafana.drop(conn, account_id)


async def _follow(conn: Connection, account_id: int) -> None:
    """The subscription follows by a job, where there may be one."""
    known = await billing.known(conn, account_id)
    if known is not None and known.customer_id is not None:
        await jobs.defer(conn, "follow_deletion", account_id=account_id)


async def later(conn: Connection, erasure_id: object) -> None:
    """The job that erases; its arguments name nobody."""
    await jobs.defer(conn, "erase", lock=f"erase {erasure_id}", erasure=str(erasure_id))


def _closing(row: dict[str, datetime], token: str, *, undone: bool) -> Closing:
    return Closing(
        "closing" if undone else "erasing",
        row["asked_at"],
        row["due_at"],
        undone,
        list(consequences.AT_ONCE),
        list(consequences.LATER),
        list(consequences.UNTIL_THEN) if undone else [],
        token,
    )


async def undo(conn: Connection, account_id: int, now: datetime) -> Undone:
    """Open the account again.

    What was revoked stays revoked; everything else works as before. Raises `Conflict` once the
    erasure has begun, and where none was asked for.
    """
    await conn.execute(query("lock_directory"))
    values = {"account": account_id}
    row = await (await conn.execute(query("lock_closing_account"), values)).fetchone()
    if row is None or row["erasing"]:
        raise Conflict("The erasure has begun: there is nothing left to go back to.")
    if row["closing_at"] is None:
        raise Conflict("The account is not being deleted.")
    await conn.execute(query("set_closing"), {**values, "at": None})
    await conn.execute(query("forget_erasure"), values)
    await conn.execute(query("end_tokens"), {**values, "purpose": "undo_deletion"})
    await conn.execute(query("restart_silence"), {**values, "now": now})
    await _follow(conn, account_id)
    await notices.notify(conn, account_id, "deletion_undone")
    return Undone("open", list(consequences.COMES_BACK), list(consequences.STAYS_GONE))


async def undo_by_token(conn: Connection, token: str, now: datetime) -> Undone:
    """The same by the link in the mail, which works once.

    Raises `Invalid` for a token that is not good, and as `undo` does.
    """
    await conn.execute(query("lock_directory"))  # before the token, which `undo` takes after it
    found = await tokens.redeem(conn, token, ["undo_deletion"], now)
    return await undo(conn, found.account_id, now)
