"""Accounts: tenant and person, the unit of isolation, billing, export and erasure."""

from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

import msgspec
from psycopg import errors

from paqett import policy
from paqett.db import Connection
from paqett.errors import Conflict, Invalid, NotFound
from paqett.plans import Plan
from paqett.sqlfiles import query

# No control characters, which have no place in a header of a mail; `$` alone allows a newline.
EMAIL = (
    r"^[^\s@\x00-\x1f\x7f\"(),:;<>\[\]\\]{1,64}@[^\s@\x00-\x1f\x7f\"(),:;<>\[\]\\]{1,190}$(?!\n)"
)
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=254, pattern=EMAIL)]
PersonName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")
]


class Account(msgspec.Struct, frozen=True):
    """`tier` takes new readings and keeps them for `retention`; `moving_from` still holds some
    while a move is open. Nothing older than `readable_from` is ever read.
    """

    id: int
    email: str
    plan: str
    tier: str
    moving_from: str | None
    readable_from: datetime
    retention: timedelta
    disabled_at: datetime | None = None
    closing_at: datetime | None = None

    def oldest(self, now: datetime) -> datetime:
        """Nothing older is read.

        While a move is open `readable_from` holds for the tier that is left: what has expired there
        never comes back, and what comes late to the new tier may be older.
        """
        expired = now - self.retention
        return expired if self.moving_from else max(expired, self.readable_from)


class Listed(msgspec.Struct, frozen=True):
    """A line of the operator's list."""

    id: int
    email: str
    plan: str
    tier: str
    devices: int
    verified: bool
    disabled: bool
    closing: bool
    operator: bool


class Profile(msgspec.Struct, frozen=True):
    """What an account knows of its person, for the person; `providers` may sign it in.

    `closing_at` is when its deletion was asked for, `erased_at` when it will be carried out.
    """

    id: int
    email: str
    email_verified_at: datetime | None
    first_name: str | None
    surname: str | None
    time_zone: str
    plan: str
    has_password: bool
    providers: list[str]
    operator: bool
    created_at: datetime
    age_confirmed_at: datetime | None
    policy_version: str | None
    policy_accepted_at: datetime | None
    disabled_at: datetime | None
    closing_at: datetime | None
    erased_at: datetime | None


class SignIn(msgspec.Struct, frozen=True):
    """What signing in by password needs to know."""

    id: int
    email: str
    password_hash: str | None
    email_verified_at: datetime | None
    first_name: str | None
    surname: str | None


async def create(conn: Connection, email: str, plan: Plan) -> Account:
    """An operator's new account on `plan`, its address taken as verified.

    Raises `Conflict` where the address has one.
    """
    values = {
        "email": email,
        "plan": plan.name,
        "tier": plan.tier,
        "policy_told": policy.in_force_day(),
    }
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


async def list_page(
    conn: Connection, *, before: int | None, text: str | None, limit: int
) -> list[Listed]:
    """At most `limit` accounts for the operator, newest first; with `text` in their address."""
    values = {"before": before, "text": text, "limit": limit}
    rows = await (await conn.execute(query("unscoped_account_page"), values)).fetchall()
    return [msgspec.convert(row, Listed) for row in rows]


async def counts(conn: Connection) -> tuple[int, int]:
    """How many accounts there are, and devices."""
    row = await (await conn.execute(query("unscoped_account_counts"))).fetchone()
    return (row["accounts"], row["devices"]) if row else (0, 0)


async def profile(conn: Connection, account_id: int) -> Profile:
    """The account as its person sees it. Raises `NotFound` once it is erased."""
    row = await (await conn.execute(query("profile"), {"account": account_id})).fetchone()
    if row is None:
        raise NotFound("The account is gone.")
    return msgspec.convert(row, Profile)


async def update(conn: Connection, account_id: int, changes: dict[str, Any]) -> Profile:
    """Change the named members of first_name, surname and time_zone; None clears a name.

    Raises `Invalid` for a time zone that is none.
    """
    if "time_zone" in changes:
        check_time_zone(changes["time_zone"])
    before = msgspec.structs.asdict(await profile(conn, account_id))
    await conn.execute(query("update_profile"), {**before, **changes, "account": account_id})
    return await profile(conn, account_id)


def check_time_zone(name: str) -> None:
    """Raises `Invalid` for what is no IANA time zone."""
    if name not in _time_zones():
        raise Invalid("time_zone is an IANA name such as Europe/Berlin.", field="time_zone")


@cache
def _time_zones() -> frozenset[str]:
    """Found on the disk, which anybody could otherwise have us search again and again."""
    return frozenset(available_timezones())


async def find_sign_in(conn: Connection, email: str) -> SignIn | None:
    """The account with this address, verified or not; None where there is none."""
    row = await (await conn.execute(query("find_sign_in"), {"account": email})).fetchone()
    return None if row is None else msgspec.convert(row, SignIn)


async def sign_in_of(conn: Connection, account_id: int) -> SignIn:
    """The same for an account that is signed in. Raises `NotFound` once it is erased."""
    row = await (await conn.execute(query("sign_in_of"), {"account": account_id})).fetchone()
    if row is None:
        raise NotFound("The account is gone.")
    return msgspec.convert(row, SignIn)


async def set_password(conn: Connection, account_id: int, password_hash: str) -> None:
    """Store a new hash; the caller ends the sessions that must end."""
    values = {"account": account_id, "hash": password_hash}
    await conn.execute(query("set_password"), values)


async def change_email(conn: Connection, account_id: int, email: str, now: datetime) -> str:
    """Take the address a token proved, and return the old one.

    Raises `Invalid` where another account has taken it meanwhile.
    """
    old = (await sign_in_of(conn, account_id)).email
    try:
        async with conn.transaction():
            values = {"account": account_id, "email": email, "now": now}
            await conn.execute(query("set_email"), values)
    except errors.UniqueViolation:
        raise Invalid("This token is not valid, was used or has expired.", field="token") from None
    return old


async def set_pending_email(conn: Connection, account_id: int, email: str | None) -> None:
    """The address the account is to have once a mail sent there is answered, or none."""
    await conn.execute(query("set_pending_email"), {"account": account_id, "email": email})


async def hold_open(conn: Connection, account_id: int) -> None:
    """Keep the account's deletion waiting until the transaction ends, so that it revokes what this
    one makes. Raises `Conflict` where it came first."""
    row = await (await conn.execute(query("hold_open"), {"account": account_id})).fetchone()
    if row is None:
        raise Conflict("The account is being deleted.")


async def set_disabled(conn: Connection, account_id: int, at: datetime | None) -> None:
    """Close an account to everything but export and deletion, or open it again with None."""
    await conn.execute(query("set_disabled"), {"account": account_id, "at": at})


async def set_operator(conn: Connection, account_id: int, *, operator: bool) -> None:
    """Whether the account's person may look at counts and states of every account."""
    await conn.execute(query("set_operator"), {"account": account_id, "operator": operator})
