"""A payload's JSON: read fast, and once more with patience where one bad value would cost the rest.

Pure; what a payload means is `decode`'s.
"""

import json
from math import inf
from typing import Final, NoReturn

import msgspec

from paqett.readings.timestamps import PayloadError
from paqett.readings.values import read_text

_JSON_BEGINS: Final = tuple('{["-0123456789tfn')


def parse_json(payload: bytes | memoryview, *, text_allowed: bool) -> object:
    """Return the payload's JSON, or with `text_allowed` the number or text that it is instead."""
    try:
        return _decode_json(payload)
    except RecursionError:
        raise PayloadError("bad_json", "nested too deeply") from None
    except ValueError:
        return _parse_again(payload, text_allowed=text_allowed)


def _parse_again(payload: bytes | memoryview, *, text_allowed: bool) -> object:
    """Read what the fast parser refuses whole.

    A byte order mark, a number no double holds or half a surrogate pair: the last two are one bad
    value and must not cost the others.
    """
    try:
        text = str(payload, "utf-8-sig")
    except UnicodeDecodeError:
        raise PayloadError("bad_json", "not UTF-8") from None
    bare = text.strip()
    if text_allowed and not bare.startswith(_JSON_BEGINS):
        return read_text(bare)
    try:
        return _tolerant_json.decode(text)
    except RecursionError:
        raise PayloadError("bad_json", "nested too deeply") from None
    except ValueError as error:
        if text_allowed and not bare.startswith("{"):
            return read_text(bare)
        raise PayloadError("bad_json", f"not JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python reads no integer of more than 4,300 digits; none could be stored
        return inf


_decode_json: Final = msgspec.json.Decoder().decode
_tolerant_json: Final = json.JSONDecoder(parse_int=_parse_integer, parse_constant=_refuse_constant)
