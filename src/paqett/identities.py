"""Who vouches for an account besides its password, and sign-ins that are on their way."""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

import msgspec

from paqett import accounts, notices, registration
from paqett.accounts import SignIn
from paqett.db import Connection
from paqett.errors import Conflict, Invalid, NotFound, Problem
from paqett.oauth import Person
from paqett.plans import Plan
from paqett.registration import Registration
from paqett.sqlfiles import query

_LASTS = timedelta(minutes=10)


class Attempt(msgspec.Struct, frozen=True):
    """A sign-in that comes back from its provider; `account_id` where it is to be joined."""

    provider: str
    code_verifier: str
    return_to: str
    age_confirmed: bool
    account_id: int | None


class AgeConfirmationRequired(Problem):
    """A first sign-in is a registration, and that asks for the person's age."""

    status = 403
    code = "age_confirmation_required"
    title = "Confirm your age"

    def __init__(self) -> None:
        super().__init__(
            "Paqett is for people of 13 and older: confirm it and start again.",
        )


class NoVerifiedEmail(Problem):
    """The provider knows no verified primary address of the person."""

    status = 403
    code = "email_not_verified"
    title = "E-mail not verified"

    def __init__(self) -> None:
        super().__init__("The provider has no verified primary address of yours.")


async def begin(conn: Connection, attempt: Attempt, now: datetime) -> str:
    """The state the browser takes along; only its hash is stored."""
    state = secrets.token_urlsafe(32)
    values = {
        **msgspec.structs.asdict(attempt),
        "hash": _hash(state),
        "now": now,
        "expires": now + _LASTS,
    }
    await conn.execute(query("create_sign_in_attempt"), values)
    return state


async def come_back(
    conn: Connection, provider: str, state: str, held: str, now: datetime
) -> Attempt:
    """The attempt this state belongs to, once, and for the browser that holds it alone.

    Raises `Invalid`.
    """
    refused = Invalid("This sign-in was not begun here, or too long ago; start again.")
    if not hmac.compare_digest(state.encode(), held.encode()):
        raise refused
    values = {"hash": _hash(state), "provider": provider, "now": now}
    row = await (await conn.execute(query("unscoped_take_sign_in_attempt"), values)).fetchone()
    if row is None:
        raise refused
    return msgspec.convert(row, Attempt)


async def find(conn: Connection, provider: str, person: Person, now: datetime) -> SignIn | None:
    """The account the provider's person signs in to, if there is one."""
    values = {"provider": provider, "subject": person.subject, "now": now}
    row = await (await conn.execute(query("unscoped_use_identity"), values)).fetchone()
    return None if row is None else await accounts.sign_in_of(conn, row["account_id"])


async def register(
    conn: Connection, attempt: Attempt, person: Person, plan: Plan, now: datetime
) -> SignIn:
    """A new account without a password, its address verified by the provider.

    Raises `Conflict` where the address has an account: its owner joins the two while signed in.
    """
    if person.email is None:
        raise NoVerifiedEmail
    known = await accounts.find_sign_in(conn, person.email)
    if known is not None and known.email_verified_at is not None:
        raise Conflict(
            "There is an account with this address: sign in to it and join the two in its settings."
        )
    if not attempt.age_confirmed:
        raise AgeConfirmationRequired
    wanted = Registration(person.email, "", age_confirmed=True, first_name=person.first_name)
    account_id = await registration.create_verified(conn, wanted, plan, now)
    if account_id is None:
        raise Conflict("The address was registered at the same moment; start again.")
    await _store(conn, account_id, attempt.provider, person, now)
    return await accounts.sign_in_of(conn, account_id)


async def join(
    conn: Connection, account_id: int, provider: str, person: Person, now: datetime
) -> None:
    """Let the provider's person sign in to an account. Raises `Conflict` where either is taken."""
    await _store(conn, account_id, provider, person, now)
    await notices.notify(conn, account_id, "identity_linked", provider=provider)


async def part(conn: Connection, account_id: int, provider: str) -> None:
    """Let it sign in no longer.

    Raises `NotFound`, and `Conflict` where nothing would be left to sign in with.
    """
    account = await accounts.profile(conn, account_id)
    if provider not in account.providers:
        raise NotFound(f"The account is not joined with {provider[:32]}.")
    if not account.has_password and len(account.providers) == 1:
        raise Conflict("Set a password first: nothing else would be left to sign in with.")
    values = {"account": account_id, "provider": provider}
    await conn.execute(query("delete_identity"), values)


async def _store(
    conn: Connection, account_id: int, provider: str, person: Person, now: datetime
) -> None:
    values = {
        "account": account_id,
        "provider": provider,
        "subject": person.subject,
        "email": person.email or "",
        "now": now,
    }
    row = await (await conn.execute(query("create_identity"), values)).fetchone()
    if row is None:
        raise Conflict(f"{provider.capitalize()} signs in to another account already.")


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
