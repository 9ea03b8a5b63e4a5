"""API keys: `pqt_`, 32 characters of 190 random bits, six of checksum; stored as SHA-256."""

import hashlib
import re
import secrets
import string
import zlib
from datetime import datetime, timedelta

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Invalid, Unauthorized
from paqett.mqtt.credentials import matches
from paqett.sqlfiles import query

SCOPES = frozenset(
    {
        "telemetry:read",
        "telemetry:write",
        "devices:read",
        "devices:write",
        "alerts",
        "export",
        "account:read",
    }
)
PREFIX = "pqt_"
_ALPHABET = string.digits + string.ascii_letters
_RANDOM, _CHECK = 32, 6
_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_USE_NOTED_EVERY = timedelta(minutes=1)


class NewKey(msgspec.Struct, frozen=True):
    """A key just made; `key` is shown this once."""

    id: int
    name: str
    hint: str
    scopes: list[str]
    device_ids: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    key: str


class Principal(msgspec.Struct, frozen=True):
    """Whoever asks: the account, and what the key allows; `key_id` is None for a device."""

    account: Account
    key_id: int | None
    scopes: frozenset[str]
    device_ids: frozenset[str] | None

    def may_see(self, device_id: str) -> bool:
        """Whether the key's allow-list, where it has one, names the device."""
        return self.device_ids is None or device_id in self.device_ids


def _checksum(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), []
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def _well_formed(key: str) -> bool:
    """A typing error is found without asking the database."""
    body, check = key[: len(PREFIX) + _RANDOM], key[len(PREFIX) + _RANDOM :]
    return key.startswith(PREFIX) and key.isascii() and check == _checksum(body)


async def create(
    conn: Connection,
    account_id: int,
    name: str,
    scopes: list[str],
    device_ids: list[str] | None,
    expires_at: datetime | None,
) -> NewKey:
    """A new key of the account. Raises `Invalid` for a scope that does not exist."""
    unknown = set(scopes) - SCOPES
    if unknown or not scopes:
        raise Invalid(f"Scopes are {', '.join(sorted(SCOPES))}.", field="scopes")
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    key = body + _checksum(body)
    values = {
        "account": account_id,
        "name": name,
        "hint": key[: len(PREFIX) + 4],
        "hash": hashlib.sha256(key.encode()).digest(),
        "scopes": sorted(scopes),
        "devices": device_ids,
        "expires": expires_at,
    }
    row = await (await conn.execute(query("create_key"), values)).fetchone()
    return msgspec.convert({**(row or {}), "key": key}, NewKey)


async def authenticate(conn: Connection, key: str, now: datetime) -> Principal:
    """Who this key is. Raises `Unauthorized` for one that is unknown, mistyped or expired."""
    refused = Unauthorized("This API key is not valid.")
    if not _well_formed(key):
        raise refused
    digest = hashlib.sha256(key.encode()).digest()
    row = await (await conn.execute(query("unscoped_find_key"), {"hash": digest})).fetchone()
    if row is None or (row["expires_at"] is not None and row["expires_at"] <= now):
        raise refused
    if row["last_used_at"] is None or now - row["last_used_at"] >= _USE_NOTED_EVERY:
        values = {"account": row["id"], "key": row["key_id"], "now": now}
        await conn.execute(query("note_key_use"), values)
    allowed = row["device_ids"]
    return Principal(
        msgspec.convert(row, Account),
        row["key_id"],
        frozenset(row["scopes"]),
        None if allowed is None else frozenset(allowed),
    )


async def authenticate_device(conn: Connection, device_id: str, secret: str) -> Principal:
    """A device that sends readings of its own. Raises `Unauthorized`."""
    row = None
    if _DEVICE_ID.fullmatch(device_id):
        found = await conn.execute(query("unscoped_find_device"), {"device": device_id})
        row = await found.fetchone()
    if row is None or not matches(secret, row["verifier"]):
        raise Unauthorized("This device id and secret are not valid.")
    return Principal(
        msgspec.convert(row, Account), None, frozenset({"telemetry:write"}), frozenset({device_id})
    )
