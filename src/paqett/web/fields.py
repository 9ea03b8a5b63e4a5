"""What a form of a page was filled in with."""

from typing import Any
from urllib.parse import parse_qsl

from litestar import Request

from paqett.errors import Invalid, UnsupportedMediaType

LARGEST = 65_536  # bytes of a form
_MOST_FIELDS = 2000
_TYPE = "application/x-www-form-urlencoded"
_KEY = "fields"


async def fields(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    """Every field with its values, in their order; read once. Raises `Invalid`.

    Not by Litestar's own parser, which keeps the last thousand bodies in memory, passwords too.
    """
    found: dict[str, list[str]] | None = request.scope["state"].get(_KEY)
    if found is None:
        found = request.scope["state"][_KEY] = await _read(request)
    return found


async def _read(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != _TYPE:
        raise UnsupportedMediaType(f"Send {_TYPE}.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise Invalid("The form cannot be read.") from None
    read: dict[str, list[str]] = {}
    for name, value in pairs:
        if "\x00" in value:
            raise Invalid("A field holds a character that cannot be stored.", field=name)
        read.setdefault(name, []).append(value)
    return read
