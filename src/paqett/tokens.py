"""What is mailed to prove an address or a person: 256 random bits or a short code, used once.

Only hashes are stored. The worker issues a token when it writes the mail, so that it stands in the
mail and nowhere else: not in a job, not in a log.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from paqett.db import Connection
from paqett.errors import Invalid
from paqett.sqlfiles import query

Purpose = Literal[
    "verify_email", "change_email", "reset_password", "reauthenticate", "undo_deletion"
]
_CODE_DIGITS = 8
_LONGEST = 100


class Token(msgspec.Struct, frozen=True):
    """A token that was good: whose it was, what for, and the address it was mailed to."""

    account_id: int
    purpose: str
    email: str


async def issue(
    conn: Connection, account_id: int, purpose: Purpose, email: str, now: datetime, lasts_s: float
) -> str:
    """A new token for a mail to `email`; earlier ones of the account and purpose end."""
    token = secrets.token_urlsafe(32)
    await _store(conn, _hash(token), account_id, purpose, email, now, lasts_s)
    return token


async def issue_code(
    conn: Connection, account_id: int, email: str, now: datetime, lasts_s: float
) -> str:
    """Eight digits that prove a person who has no password; earlier ones end."""
    code = f"{secrets.randbelow(10**_CODE_DIGITS):0{_CODE_DIGITS}}"
    digest = _code_hash(account_id, code)
    await _store(conn, digest, account_id, "reauthenticate", email, now, lasts_s)
    return code


async def _store(
    conn: Connection, digest: bytes, account_id: int, purpose: Purpose, email: str,
    now: datetime, lasts_s: float,
) -> None:  # fmt: skip
    values = {
        "account": account_id,
        "purpose": purpose,
        "hash": digest,
        "email": email,
        "now": now,
        "expires": now + timedelta(seconds=lasts_s),
    }
    await conn.execute(query("end_tokens"), values)
    await conn.execute(query("create_token"), values)


async def redeem(conn: Connection, token: str, purposes: list[Purpose], now: datetime) -> Token:
    """What the token stood for; it is gone afterwards. Raises `Invalid` where it is not good."""
    return await _redeem(conn, _hash(token[:_LONGEST]), purposes, now, "token")


async def redeem_code(conn: Connection, account_id: int, code: str, now: datetime) -> Token:
    """The same for a code of this account. The caller limits how often it may be tried."""
    digest = _code_hash(account_id, code[:_LONGEST].replace(" ", ""))
    return await _redeem(conn, digest, ["reauthenticate"], now, "code")


async def _redeem(
    conn: Connection, digest: bytes, purposes: list[Purpose], now: datetime, what: str
) -> Token:
    values = {"hash": digest, "purposes": list(purposes), "now": now}
    row = await (await conn.execute(query("unscoped_redeem_token"), values)).fetchone()
    if row is None:
        raise Invalid(f"This {what} is not valid, was used or has expired.", field=what)
    return msgspec.convert(row, Token)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _code_hash(account_id: int, code: str) -> bytes:
    return hashlib.sha256(f"{account_id} {code}".encode()).digest()
