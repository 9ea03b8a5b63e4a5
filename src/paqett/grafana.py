"""An account's read-only SQL login: made, rotated, dropped, and watched.

It sees the views of schema `grafana`, which are keyed by the login's name, and nothing else
(`sql/admin/grafana.sql`, `sql/admin/logins.sql`).
"""

import secrets
from base64 import b64encode
from datetime import datetime
from hashlib import pbkdf2_hmac, sha256
from hmac import digest

import msgspec

from paqett import accounts
from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import LimitReached, NotFound, Problem
from paqett.plans import Plan
from paqett.sqlfiles import query

_ROUNDS = 4096


class NotInPlan(LimitReached):
    """The account's plan has no SQL login."""

    status = 403
    code = "not_in_plan"
    title = "Not in the plan"


class LoginsUnavailable(Problem):
    """This server cannot keep SQL logins of accounts apart, so it gives out none."""

    status = 501
    code = "sql_logins_unavailable"
    title = "SQL logins unavailable"


class Place(msgspec.Struct, frozen=True):
    """Where Grafana finds the database; `sslmode` is libpq's word."""

    host: str
    port: int
    sslmode: str


class Login(msgspec.Struct, frozen=True):
    """What Grafana's PostgreSQL data source asks for; `password` is shown this once."""

    host: str
    port: int
    database: str
    user: str
    password: str
    sslmode: str


class Made(msgspec.Struct, frozen=True):
    """A login that was made before; its password is known to nobody here."""

    role: str
    database: str
    created_at: datetime


class Ended(msgspec.Struct, frozen=True):
    """Something a login kept open for `seconds`; `action` is canceled or terminated."""

    login: str
    action: str
    seconds: float


class State(msgspec.Struct, frozen=True):
    """What `paqett doctor` and `create` judge by: see the query `unscoped_sql_login_state`."""

    can_create: bool
    open_routines: int
    open_tables: int
    open_temporary: bool
    prepared_transactions: int
    logins: int
    odd_logins: int
    stray_roles: int
    watched_at: datetime | None

    @property
    def closed(self) -> bool:
        """Whether a login reaches nothing but its views."""
        return not (self.open_routines or self.open_tables or self.open_temporary)


async def create(
    conn: Connection, account: Account, plan: Plan, place: Place, limit_s: int
) -> Login:
    """The account's SQL login with a new password; sessions that used an older one are closed.

    `limit_s` is how long its statements may take, in seconds. Raises `NotInPlan`, `Conflict` where
    the account is being deleted, and `LoginsUnavailable` where roles or REVOKEs cannot be had.
    """
    if not plan.grafana:
        raise NotInPlan(f"The plan {plan.name} has no SQL login.", extra={"limit": 0})
    await accounts.hold_open(conn, account.id)
    found = await state(conn)
    if not found.can_create or not found.closed:
        raise LoginsUnavailable(
            "This server cannot keep SQL logins apart: its operator must run `paqett migrate` as a"
            " superuser. Grafana can read over HTTP, with the Infinity data source and an API key."
        )
    password = secrets.token_urlsafe(24)
    values = {"account": account.id, "verifier": scram_verifier(password), "limit_s": limit_s}
    row = await (await conn.execute(query("create_sql_login"), values)).fetchone()
    if row is None:
        raise NotFound("There is no such account.")
    return Login(place.host, place.port, row["database"], row["role"], password, place.sslmode)


async def drop(conn: Connection, account_id: int) -> bool:
    """End the account's SQL login and its sessions; false where it has none."""
    row = await conn.execute(query("drop_sql_login"), {"account": account_id})
    return await row.fetchone() is not None


async def find(conn: Connection, account: Account) -> Made | None:
    """The account's SQL login, where it has one."""
    rows = await conn.execute(query("sql_login_of"), {"account": account.id})
    row = await rows.fetchone()
    return None if row is None else msgspec.convert(row, Made)


async def watch(conn: Connection, limit_s: float) -> list[Ended]:
    """End what any login kept open longer than `limit_s` seconds, and say what that was."""
    made = await (await conn.execute(query("unscoped_sql_logins_made_here"))).fetchone()
    if made is None or not made["made"]:
        return []
    rows = await conn.execute(query("unscoped_watch_sql_logins"), {"limit_s": limit_s})
    return [msgspec.convert(row, Ended) for row in await rows.fetchall()]


async def state(conn: Connection) -> State:
    """Whether logins can be made here, and how those there are stand."""
    row = await (await conn.execute(query("unscoped_sql_login_state"))).fetchone()
    return msgspec.convert(row, State)


def scram_verifier(password: str, rounds: int = _ROUNDS) -> str:
    """What PostgreSQL stores of an ASCII password: SCRAM-SHA-256, as RFC 5803 writes it."""
    salt = secrets.token_bytes(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = sha256(digest(salted, b"Client Key", "sha256")).digest()
    server = digest(salted, b"Server Key", "sha256")
    parts = [b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${rounds}:{parts[0]}${parts[1]}:{parts[2]}"
