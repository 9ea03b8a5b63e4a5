"""Flat rows as JSON, CSV or NDJSON, whichever the client accepts; whole, or as a stream."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from paqett.errors import Problem
from paqett.readings.packed import Packed, written

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
_ALSO_NDJSON = ("application/ndjson", "application/jsonl")
FORMS = {CSV: {"type": "string"}, NDJSON: {"type": "string"}}
"""Beside JSON, for the OpenAPI document."""

_HEADERS = {CSV: "text/csv; charset=utf-8; header=present"}
_SPECIAL = frozenset(',"\r\n')
_JSON_TOO = _SPECIAL | frozenset("[]\\")
_PLAIN = {float, int, bool}
_encoder = msgspec.json.Encoder()

Rows = Sequence[tuple[Any, ...]]


class NotAcceptable(Problem):
    """The client accepts nothing we have."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"


def accepted(request: Request[Any, Any, State]) -> str:
    """The media type to answer with; JSON by default. Raises `NotAcceptable`."""
    if not request.headers.get("accept", "").strip():
        return JSON
    best = request.accept.best_match([JSON, CSV, NDJSON, *_ALSO_NDJSON])
    if best is None:
        raise NotAcceptable(f"Accept {JSON}, {CSV} or {NDJSON}.")
    return NDJSON if best in _ALSO_NDJSON else best


def content_type(media_type: str) -> str:
    """The whole header."""
    return _HEADERS.get(media_type, media_type)


@lru_cache(maxsize=256)
def _struct(columns: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Row", [(column, Any) for column in columns], frozen=True, gc=False)


def items(columns: tuple[str, ...], rows: Rows) -> list[msgspec.Struct]:
    """Rows as objects that are encoded as JSON objects."""
    make: Callable[..., msgspec.Struct] = _struct(columns)
    return [make(*row) for row in rows]


def heading(media_type: str, columns: tuple[str, ...]) -> bytes:
    """CSV's first line; NDJSON has none."""
    return f"{','.join(columns)}\n".encode() if media_type == CSV else b""


def lines(media_type: str, columns: tuple[str, ...], rows: Rows) -> bytes:
    """A line for each row: JSON, or CSV with times and numbers as in JSON and null as nothing."""
    if media_type == NDJSON:
        return _encoder.encode_lines(items(columns, rows))
    if not rows:
        return b""
    if _is_plain(
        rows
    ):  # JSON's arrays are CSV then, but for brackets and quotes; three times as fast
        arrays = _encoder.encode(rows)[2:-2]
        return arrays.replace(b"],[", b"\n").replace(b'"', b"") + b"\n"
    cells = zip(*map(_cells, zip(*rows, strict=True)), strict=True)
    return "\n".join([*map(",".join, cells), ""]).encode()


def packed_lines(packed: Packed, labels: dict[int, tuple[str, str]]) -> bytes:
    """The same lines of CSV from columns of numbers."""
    middles = {
        key: f"Z,{_quoted(device)},{_quoted(metric)}," for key, (device, metric) in labels.items()
    }
    return written(packed, middles)


def encode(media_type: str, columns: tuple[str, ...], rows: Rows) -> bytes:
    """All of it, as CSV or NDJSON."""
    return heading(media_type, columns) + lines(media_type, columns, rows)


def _is_plain(rows: Rows) -> bool:
    """Whether every row is a time, two harmless words and numbers or booleans."""
    times, devices, metrics, *values = zip(*rows, strict=True)
    return (
        set(map(type, times)) == {datetime}
        and all(set(map(type, column)) <= _PLAIN for column in values)
        and all(map(_is_harmless, {*devices, *metrics}))
    )


def _is_harmless(text: str) -> bool:
    """Neither CSV nor JSON would quote or escape any of it."""
    return text != "" and text.isprintable() and _JSON_TOO.isdisjoint(text)


def _cells(values: tuple[Any, ...]) -> Iterable[str]:
    """One column of CSV; the common ones by the column."""
    kinds = set(map(type, values))
    if kinds == {datetime}:
        return _encoder.encode(values).decode()[2:-2].split('","')
    if kinds <= {float, int}:
        return _encoder.encode(values).decode()[1:-1].split(",")
    return map(_cell, values)


def _cell(value: Any) -> str:
    if type(value) is str:
        return _quoted(value)
    return "" if value is None else _encoder.encode(value).decode()


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    """RFC 4180; an empty text is not nothing."""
    if text and _SPECIAL.isdisjoint(text):
        return text
    return '"{}"'.format(text.replace('"', '""'))
