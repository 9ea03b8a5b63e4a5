"""API keys: `pqt_`, 32 characters of 190 random bits, six of checksum; stored as SHA-256."""

import hashlib
import secrets
import string
import zlib
from datetime import datetime, timedelta

import msgspec

from paqett import accounts
from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Conflict, Invalid, NotFound, Unauthorized
from paqett.mqtt.access import DEVICE_ID
from paqett.mqtt.credentials import matches
from paqett.principals import SCOPES, Principal
from paqett.sqlfiles import query

PREFIX = "pqt_"
MOST = 1000  # keys of one account
_ALPHABET = string.digits + string.ascii_letters
_RANDOM, _CHECK = 32, 6
_USE_NOTED_EVERY = timedelta(minutes=1)


class Key(msgspec.Struct, frozen=True):
    """A key without itself: `hint` is how it begins."""

    id: int
    name: str
    hint: str
    scopes: list[str]
    device_ids: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_ip: str | None


class NewKey(Key, frozen=True):
    """A key just made; `key` is shown this once."""

    key: str


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
    """A new key of the account.

    Raises `Conflict` where it has as many as it may have or is being deleted, `Invalid` for a scope
    that does not exist or a device that is not the account's.
    """
    unknown = set(scopes) - SCOPES
    if unknown or not scopes:
        raise Invalid(f"Scopes are {', '.join(sorted(SCOPES))}.", field="scopes")
    await accounts.hold_open(conn, account_id)
    await _check_devices(conn, account_id, device_ids)
    row = await (await conn.execute(query("count_keys"), {"account": account_id})).fetchone()
    if row is not None and row["keys"] >= MOST:
        raise Conflict(f"An account has {MOST:,} API keys at most; delete some first.")
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    key = body + _checksum(body)
    values = {
        "account": account_id,
        "name": name,
        "hint": key[: len(PREFIX) + 4],
        "hash": hashlib.sha256(key.encode()).digest(),
        "scopes": sorted(set(scopes)),
        "devices": None if device_ids is None else sorted(set(device_ids)),
        "expires": expires_at,
    }
    row = await (await conn.execute(query("create_key"), values)).fetchone()
    return msgspec.convert({**(row or {}), "key": key}, NewKey)


async def _check_devices(conn: Connection, account_id: int, device_ids: list[str] | None) -> None:
    if device_ids is None:
        return
    values = {"account": account_id, "devices": device_ids}
    row = await (await conn.execute(query("count_named_devices"), values)).fetchone()
    if row is None or not device_ids or row["devices"] != len(set(device_ids)):
        raise Invalid("device_ids are devices of the account, at least one.", field="device_ids")


async def list_keys(conn: Connection, account_id: int) -> list[Key]:
    """The account's keys, newest first; expired ones stay until they are deleted."""
    rows = await (await conn.execute(query("list_keys"), {"account": account_id})).fetchall()
    return [
        msgspec.convert(
            {**row, "last_used_ip": row["last_used_ip"] and str(row["last_used_ip"])}, Key
        )
        for row in rows
    ]


async def delete(conn: Connection, account_id: int, key_id: int) -> str:
    """The next request with it is refused; returns its name. Raises `NotFound`."""
    values = {"account": account_id, "key": key_id}
    row = await (await conn.execute(query("delete_key"), values)).fetchone()
    if row is None:
        raise NotFound(f"There is no key {key_id}.")
    return str(row["name"])


async def authenticate(
    conn: Connection, key: str, now: datetime, ip: str | None = None
) -> Principal:
    """Who this key is. Raises `Unauthorized` for one that is unknown, mistyped or expired."""
    refused = Unauthorized("This API key is not valid.")
    if not _well_formed(key):
        raise refused
    digest = hashlib.sha256(key.encode()).digest()
    row = await (await conn.execute(query("unscoped_find_key"), {"hash": digest})).fetchone()
    if row is None or (row["expires_at"] is not None and row["expires_at"] <= now):
        raise refused
    if row["last_used_at"] is None or now - row["last_used_at"] >= _USE_NOTED_EVERY:
        values = {"account": row["id"], "key": row["key_id"], "now": now, "ip": ip}
        await conn.execute(query("note_key_use"), values)
    allowed = row["device_ids"]
    return Principal(
        msgspec.convert(row, Account),
        row["key_id"],
        frozenset(row["scopes"]),
        None if allowed is None else frozenset(allowed),
    )


async def authenticate_device(
    conn: Connection, device_id: str, secret: str, now: datetime, ip: str | None = None
) -> Principal:
    """A device that sends readings of its own. Raises `Unauthorized`."""
    row = None
    if DEVICE_ID.fullmatch(device_id):
        found = await conn.execute(query("unscoped_find_device"), {"device": device_id})
        row = await found.fetchone()
    if row is None or not matches(secret, row["verifier"]):
        raise Unauthorized("This device id and secret are not valid.")
    if row["secret_used_at"] is None or now - row["secret_used_at"] >= _USE_NOTED_EVERY:
        values = {"account": row["id"], "device": device_id, "now": now, "ip": ip}
        await conn.execute(query("note_secret_use"), values)
    return Principal(
        msgspec.convert(row, Account), None, frozenset({"telemetry:write"}), frozenset({device_id})
    )


async def may_connect(conn: Connection, device_id: str, secret: str) -> bool:
    """Whether the broker may let this device in now, by the rules of its password file."""
    if not DEVICE_ID.fullmatch(device_id):
        return False
    found = await conn.execute(query("unscoped_device_verifier"), {"device": device_id})
    row = await found.fetchone()
    return row is not None and matches(secret, row["verifier"])
