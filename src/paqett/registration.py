"""Registration by e-mail: an address is an account once its person has shown that it is theirs."""

from datetime import datetime

import msgspec

from paqett import accounts, mails, policy
from paqett.accounts import Email, PersonName
from paqett.db import Connection
from paqett.errors import Invalid
from paqett.plans import Plan
from paqett.sqlfiles import query
from paqett.tokens import Token


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person gives; `age_confirmed` says that they are 13 or older (privacy policy §9)."""

    email: Email
    password: str
    age_confirmed: bool
    first_name: PersonName | None = None
    surname: PersonName | None = None
    time_zone: str = "UTC"


def check(wanted: Registration) -> None:
    """Raises `Invalid` for a time zone that is none, or an age that was not confirmed."""
    accounts.check_time_zone(wanted.time_zone)
    check_age(confirmed=wanted.age_confirmed)


def check_age(*, confirmed: bool) -> None:
    """Raises `Invalid`."""
    if not confirmed:
        raise Invalid("Paqett is for people of 13 and older: confirm it.", field="age_confirmed")


async def register(
    conn: Connection, wanted: Registration, password_hash: str, plan: Plan, now: datetime
) -> None:
    """Keep the registration until its mail is answered; nobody is told whether there was one.

    An address that has an account gets a mail that says so instead.
    """
    known = await accounts.find_sign_in(conn, wanted.email)
    account_id = await _keep(conn, wanted, password_hash, plan, now)
    if account_id is not None:
        await mails.defer(conn, "verify_email", account_id)
    else:
        await mails.defer(conn, "already_registered", known.id if known else 0)


async def create_verified(
    conn: Connection, wanted: Registration, plan: Plan, now: datetime
) -> int | None:
    """An account without a password, its address shown to be theirs by somebody else.

    None where the address has an account.
    """
    account_id = await _keep(conn, wanted, None, plan, now)
    if account_id is not None:
        await verify(conn, Token(account_id, "verify_email", wanted.email), now)
    return account_id


async def _keep(
    conn: Connection, wanted: Registration, password_hash: str | None, plan: Plan, now: datetime
) -> int | None:
    values = {
        "email": wanted.email,
        "plan": plan.name,
        "tier": plan.tier,
        "hash": password_hash,
        "first_name": wanted.first_name,
        "surname": wanted.surname,
        "time_zone": wanted.time_zone,
        "policy_version": policy.in_force_day(),
        "now": now,
    }
    row = await (await conn.execute(query("register"), values)).fetchone()
    return None if row is None else int(row["id"])


async def verify(conn: Connection, token: Token, now: datetime) -> None:
    """The address is theirs. Raises `Invalid` where the account has another by now."""
    values = {"account": token.account_id, "email": token.email, "now": now}
    if await (await conn.execute(query("verify_email"), values)).fetchone() is None:
        raise Invalid("This token is not valid, was used or has expired.", field="token")
