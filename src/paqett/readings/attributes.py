"""What a device says of itself: an RFC 7396 merge patch under `attributes`.

`mac_address` and `firmware_version` have columns of their own; every other member is an attribute.
A patch is applied whole or not at all.
"""

import json
import re
from typing import Any, Final

import msgspec
from psycopg.types.json import Jsonb

from paqett import mac
from paqett.db import Connection
from paqett.readings.rejection import Rejection
from paqett.readings.timestamps import PayloadError
from paqett.readings.values import MAX_EXACT_INTEGER
from paqett.sqlfiles import query

MAX_KEYS: Final = 50
MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 16
MAX_FIRMWARE_CHARACTERS: Final = 128
_SMALLEST: Final = 1e-15
_FIRMWARE: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class About(msgspec.Struct, frozen=True):
    """What a device has said of itself so far."""

    mac_address: str | None
    firmware_version: str | None
    attributes: dict[str, Any]


async def merge_attributes(
    conn: Connection, account_id: int, device_id: str, payload: bytes
) -> Rejection | None:
    """Apply a device's patch in the caller's transaction; the refusal where there is one.

    Holds the device's row until the commit, so whoever merges for several devices in one
    transaction takes them in the order of their ids. A device that is not the account's, or no
    longer there, is left alone. Raises nothing for what a device can send.
    """
    try:
        patch = read_patch(payload)
        values = {"account": account_id, "id": device_id}
        row = await (await conn.execute(query("attributes_for_change"), values)).fetchone()
        if row is None:
            return None
        before = msgspec.convert(row, About)
        after = apply(before, patch)
        if after != before:
            changed = msgspec.structs.asdict(after) | {"attributes": Jsonb(after.attributes)}
            await conn.execute(query("set_attributes"), {**values, **changed})
    except PayloadError as refused:
        return Rejection(0, None, refused.code, refused.detail)
    return None


def read_patch(payload: bytes) -> dict[str, Any]:
    """The patch, fit to be stored.

    Raises `PayloadError`: ``bad_json`` for what is no JSON object, ``bad_value`` for numbers and
    text that would not come back as they were sent.
    """
    try:
        patch = msgspec.json.decode(payload.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PayloadError("bad_json", f"not JSON: {error}") from None
    except RecursionError:
        raise PayloadError("bad_json", "nested too deeply") from None
    if type(patch) is not dict:
        raise PayloadError("bad_json", "attributes are an object")
    _check(patch, 1)
    return patch


def apply(before: About, patch: dict[str, Any]) -> About:
    """`before` with the patch applied. Raises `PayloadError` ``bad_value``."""
    rest = dict(patch)
    address = rest.pop("mac_address", before.mac_address)
    if address is not None and not (type(address) is str and mac.is_mac(address)):
        raise PayloadError("bad_value", mac.WRONG.rstrip("."))
    firmware = rest.pop("firmware_version", before.firmware_version)
    if firmware is not None and not (type(firmware) is str and _FIRMWARE.fullmatch(firmware)):
        raise PayloadError(
            "bad_value",
            f"firmware_version is text of 1 to {MAX_FIRMWARE_CHARACTERS} printable characters",
        )
    attributes = merge(before.attributes, rest)
    if len(attributes) > MAX_KEYS:
        raise PayloadError(
            "bad_value", f"{len(attributes)} attributes after the merge; at most {MAX_KEYS}"
        )
    size = len(json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        raise PayloadError(
            "bad_value", f"attributes of {size} bytes after the merge; at most {MAX_BYTES}"
        )
    return About(address, firmware, attributes)


def merge(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396: null removes, objects merge, all else replaces; `target` is left as it is."""
    merged = dict(target) if type(target) is dict else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif type(value) is dict:
            merged[key] = merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def _check(value: Any, depth: int) -> None:
    """Refuse what PostgreSQL would not hold or give back, before anything walks deeper."""
    if depth > MAX_DEPTH:
        raise PayloadError("bad_value", f"attributes nest at most {MAX_DEPTH} levels deep")
    if type(value) is dict:
        for key, member in value.items():
            _check(key, depth)
            _check(member, depth + 1)
    elif type(value) is list:
        for member in value:
            _check(member, depth + 1)
    elif type(value) is str and "\0" in value:
        raise PayloadError("bad_value", "text holds no U+0000")
    elif type(value) in (int, float) and not _is_plain(value):
        raise PayloadError("bad_value", "a number is 0, or between 1e-15 and 2^53 in size")


def _is_plain(number: float) -> bool:
    """Whether it comes back from the database as it was sent, and about as long."""
    return number == 0 or _SMALLEST <= abs(number) <= MAX_EXACT_INTEGER
