"""Where notices go besides the list: mail to the account's own address, and webhooks.

A delivery is one notice for one webhook. Its row, and the job that sends it, are written in the
notice's transaction. It is sent at least once, always under its own id: killed between the answer
and the note of it, the worker sends it again.
"""

import secrets
from datetime import datetime
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from paqett import jobs
from paqett.db import Connection
from paqett.errors import LimitReached, NotFound
from paqett.sqlfiles import query

MAIL = 0
"""The id of the built-in channel, which every account has."""
MOST_FAILURES = 50
_MOST = 10
_SHOWN = 20


class Attempt(msgspec.Struct, frozen=True):
    """`status` None: there was no answer; `error` None: it was taken."""

    at: datetime
    status: int | None
    error: str | None
    ms: int


class Delivery(msgspec.Struct, frozen=True):
    """One notice (None: a test) on its way to one webhook."""

    id: str
    event: str
    notice: int | None
    state: Literal["waiting", "delivered", "failed"]
    created_at: datetime
    attempts: list[Attempt]


class Channel(msgspec.Struct, frozen=True, omit_defaults=False):
    """`failures` in a row; `deliveries` are the newest 20. Mail is there and stays."""

    id: int
    kind: Literal["mail", "webhook"]
    name: str
    url: str | None
    address: str | None
    created_at: datetime | None
    failures: int = 0
    paused_at: datetime | None = None
    deliveries: list[Delivery] = []


class NewChannel(msgspec.Struct, frozen=True):
    """A channel just made: its `secret` is shown this once."""

    id: int
    kind: Literal["webhook"]
    name: str
    url: str
    created_at: datetime
    secret: str


def new_secret() -> str:
    """256 random bits."""
    return f"whsec_{secrets.token_urlsafe(32)}"


async def create(
    conn: Connection, account_id: int, name: str, url: str, now: datetime
) -> NewChannel:
    """A webhook; its address has been checked. Raises `LimitReached` past ten."""
    await conn.execute(query("lock_channels"), {"account": account_id})
    row = await (await conn.execute(query("count_channels"), {"account": account_id})).fetchone()
    if row is not None and row["channels"] >= _MOST:
        raise LimitReached(f"An account has at most {_MOST} webhooks.", extra={"limit": _MOST})
    secret = new_secret()
    values = {"account": account_id, "name": name, "url": url, "secret": secret, "now": now}
    made = await (await conn.execute(query("create_channel"), values)).fetchone()
    return NewChannel(made["id"] if made else 0, "webhook", name, url, now, secret)


async def list_channels(conn: Connection, account_id: int, email: str) -> list[Channel]:
    """Mail first, then the webhooks in the order they were made."""
    return [
        Channel(MAIL, "mail", "Mail", None, email, None),
        *await _webhooks(conn, account_id, None),
    ]


async def get(conn: Connection, account_id: int, channel_id: int) -> Channel:
    """One webhook. Raises `NotFound`."""
    found = await _webhooks(conn, account_id, channel_id) if 0 < channel_id < 2**31 else []
    if not found:
        raise _not_found(channel_id)
    return found[0]


def _not_found(channel_id: int) -> NotFound:
    return NotFound(f"There is no channel {channel_id}.")


async def _webhooks(conn: Connection, account_id: int, channel_id: int | None) -> list[Channel]:
    values: dict[str, Any] = {"account": account_id, "channel": channel_id}
    rows = await (await conn.execute(query("list_channels"), values)).fetchall()
    log: dict[int, list[Delivery]] = {row["id"]: [] for row in rows}
    values |= {"channels": list(log), "limit": _SHOWN}
    for row in await (await conn.execute(query("latest_deliveries"), values)).fetchall():
        log[row["channel_id"]].append(
            Delivery(
                str(row["id"]), row["event"], row["notice_id"], row["state"], row["created_at"],
                msgspec.convert(row["attempts"], list[Attempt]),
            )
        )  # fmt: skip
    return [
        Channel(
            row["id"], "webhook", row["name"], row["url"], None, row["created_at"],
            row["failures"], row["paused_at"], log[row["id"]],
        )
        for row in rows
    ]  # fmt: skip


async def delete(conn: Connection, account_id: int, channel_id: int) -> str:
    """Delete a webhook; its name. What waits for it is not sent. Raises `NotFound`."""
    values = {"account": account_id, "channel": channel_id}
    row = None
    if 0 < channel_id < 2**31:
        row = await (await conn.execute(query("delete_channel"), values)).fetchone()
    if row is None:
        raise _not_found(channel_id)
    name: str = row["name"]
    return name


async def rotate_secret(conn: Connection, account_id: int, channel_id: int) -> str:
    """The new secret; for 24 hours the one before signs beside it. Raises `NotFound`."""
    await get(conn, account_id, channel_id)
    secret = new_secret()
    values = {"account": account_id, "channel": channel_id, "secret": secret}
    await conn.execute(query("rotate_channel_secret"), values)
    return secret


async def test(conn: Connection, account_id: int, channel_id: int) -> str:
    """Send a test, to a paused webhook too; the id of its delivery. Raises `NotFound`."""
    await get(conn, account_id, channel_id)
    values = {"account": account_id, "channel": channel_id}
    row = await (await conn.execute(query("create_test_delivery"), values)).fetchone()
    delivery = str(row["id"]) if row else ""
    await _defer(conn, account_id, delivery)
    return delivery


async def send_notice(conn: Connection, account_id: int, notice_id: int, event: str) -> None:
    """One delivery for each webhook of the account that is not paused."""
    values = {"account": account_id, "notice": notice_id, "event": event}
    for row in await (await conn.execute(query("create_deliveries"), values)).fetchall():
        await _defer(conn, account_id, str(row["id"]))


async def _defer(conn: Connection, account_id: int, delivery: str, after_s: float = 0) -> None:
    await jobs.defer(
        conn, "deliver_webhook", queue=jobs.WEBHOOKS, after_s=after_s, account_id=account_id,
        delivery=delivery,
    )  # fmt: skip


class Due(msgspec.Struct, frozen=True):
    """A delivery that is to be tried; `attempts` were made before."""

    id: str
    event: str
    channel_id: int
    url: str
    secrets: list[str]
    paused: bool
    attempts: int
    notice_id: int | None
    kind: str | None
    data: dict[str, Any] | None
    created_at: datetime


async def due(conn: Connection, account_id: int, delivery: str, now: datetime) -> Due | None:
    """What to send; None where there is nothing left to do."""
    values = {"account": account_id, "delivery": delivery, "now": now}
    row = await (await conn.execute(query("delivery_to_send"), values)).fetchone()
    if row is None:
        return None
    signing = [secret for secret in (row["secret"], row["old_secret"]) if secret]
    return Due(
        str(row["id"]), row["event"], row["channel_id"], row["url"], signing,
        row["paused_at"] is not None, row["attempts"], row["notice_id"], row["kind"], row["data"],
        row["noticed_at"] or row["created_at"],
    )  # fmt: skip


async def note(conn: Connection, account_id: int, of: Due, attempt: Attempt) -> "Paused | None":
    """Keep an attempt, and plan the next where it failed; the channel, where this paused it.

    A test is tried once. A channel that fails `MOST_FAILURES` times in a row is paused, and what
    waits for it fails; a test that succeeds lets it go on.
    """
    number = of.attempts + 1
    state = "waiting"
    if attempt.error is None:
        state = "delivered"
    elif of.event == "test" or number >= jobs.MOST_ATTEMPTS:
        state = "failed"
    values: dict[str, Any] = {"account": account_id, "channel": of.channel_id, "delivery": of.id}
    noted = {**values, "state": state, "attempt": Jsonb([msgspec.to_builtins(attempt)])}
    if await (await conn.execute(query("note_attempt"), noted)).fetchone() is None:
        return None
    if attempt.error is None:
        await conn.execute(query("note_channel_success"), values)
        return None
    counted = {**values, "most": MOST_FAILURES, "now": attempt.at}
    paused = await (await conn.execute(query("note_channel_failure"), counted)).fetchone()
    if paused is not None:
        await conn.execute(query("fail_waiting_deliveries"), values)
        return Paused(paused["name"], paused["url"])
    if state == "waiting":
        await _defer(conn, account_id, of.id, after_s=jobs.wait_s(of.attempts))
    return None


class Paused(msgspec.Struct, frozen=True):
    """A channel that has just been paused."""

    name: str
    url: str


async def give_up(conn: Connection, account_id: int, of: Due) -> None:
    """The channel is paused: what waits for it fails."""
    values = {"account": account_id, "channel": of.channel_id}
    await conn.execute(query("fail_waiting_deliveries"), values)
