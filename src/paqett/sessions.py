"""Sessions of people in browsers: a random token in a cookie, its hash in PostgreSQL.

A session ends by signing out, after a time without requests, and after a longer one in any case.
What it keeps of the person is when, from which address and with which agent they signed in.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import NotFound, Unauthorized
from paqett.principals import SCOPES, Principal, Session
from paqett.sqlfiles import query

_SEEN_NOTED_EVERY = timedelta(minutes=1)
_LONGEST_AGENT = 256
_MOST_LISTED = 200


class Opening(msgspec.Struct, frozen=True):
    """How somebody signed in: `method` is password, a provider's name, or admin."""

    method: str
    ip: str | None
    agent: str | None


class Listed(msgspec.Struct, frozen=True):
    """A line of one's own sessions."""

    id: int
    method: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ip: str | None
    agent: str | None
    current: bool


class Past(msgspec.Struct, frozen=True):
    """Whether there were sessions at all, and from this network (IPv6: this /64)."""

    any: bool
    from_here: bool


def csrf_token(token: str) -> str:
    """What a write must send in `X-CSRF-Token`: known to whoever was given the session, alone."""
    return hmac.digest(token.encode(), b"paqett csrf", "sha256").hex()


async def open_session(
    conn: Connection, account_id: int, how: Opening, now: datetime, lasts_s: float
) -> str:
    """A new session's token; the caller puts it into the cookie and nowhere else."""
    token = secrets.token_urlsafe(32)
    values = {
        "account": account_id,
        "hash": _hash(token),
        "method": how.method,
        "now": now,
        "expires": now + timedelta(seconds=lasts_s),
        "ip": how.ip,
        "agent": None if how.agent is None else _printable(how.agent),
    }
    await conn.execute(query("create_session"), values)
    return token


def _printable(agent: str) -> str:
    return "".join(letter for letter in agent[:_LONGEST_AGENT] if letter.isprintable())


async def authenticate(conn: Connection, token: str, now: datetime, idle_s: float) -> Principal:
    """Whose session this is. Raises `Unauthorized` for one that has ended or never was."""
    values = {"hash": _hash(token), "now": now, "idle_since": now - timedelta(seconds=idle_s)}
    row = await (await conn.execute(query("unscoped_find_session"), values)).fetchone()
    if row is None:
        raise Unauthorized("The session has ended; sign in again.")
    if now - row["seen_at"] >= _SEEN_NOTED_EVERY:
        seen = {"account": row["id"], "session": row["session_id"], "now": now}
        await conn.execute(query("note_session_seen"), seen)
    session = Session(row["session_id"], row["method"], row["authenticated_at"])
    return Principal(msgspec.convert(row, Account), None, SCOPES, None, session)


async def renew(conn: Connection, account_id: int, session_id: int, now: datetime) -> str:
    """A new token for the session of somebody who just proved who they are; the old one ends."""
    token = secrets.token_urlsafe(32)
    values = {"account": account_id, "session": session_id, "hash": _hash(token), "now": now}
    await conn.execute(query("renew_session"), values)
    return token


async def past(conn: Connection, account_id: int, ip: str | None) -> Past:
    """What the account's sessions of the last 30 days say of an address."""
    values = {"account": account_id, "ip": ip}
    row = await (await conn.execute(query("session_addresses"), values)).fetchone()
    return Past(bool(row and row["sessions"]), bool(row and row["known"]))


async def list_sessions(conn: Connection, account_id: int, current: int | None) -> list[Listed]:
    """The account's sessions, live and ended ones of the last 30 days, newest first."""
    values = {"account": account_id, "limit": _MOST_LISTED}
    rows = await (await conn.execute(query("list_sessions"), values)).fetchall()
    return [
        msgspec.convert(
            {**row, "ip": row["ip"] and str(row["ip"]), "current": row["id"] == current}, Listed
        )
        for row in rows
    ]


async def end(conn: Connection, account_id: int, session_id: int, now: datetime) -> None:
    """End one. Raises `NotFound` for one that is not the account's or has ended."""
    values = {"account": account_id, "session": session_id, "now": now}
    row = await (await conn.execute(query("end_session"), values)).fetchone()
    if row is None:
        raise NotFound(f"There is no session {session_id}.")


async def end_all(
    conn: Connection, account_id: int, now: datetime, *, but: int | None = None
) -> None:
    """End every session of the account, or every other one."""
    await conn.execute(query("end_sessions"), {"account": account_id, "but": but, "now": now})


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
