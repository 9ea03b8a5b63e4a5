"""Many devices in one body: JSON or CSV, each row judged by itself, the first wrong one named."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from litestar.exceptions import HTTPException

from paqett.device_structs import DeviceIn
from paqett.errors import Invalid

MAX_DEVICES = 1000
_COLUMNS = DeviceIn.__struct_fields__
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/DeviceIn"},
                "minItems": 1,
                "maxItems": MAX_DEVICES,
            }
        },
        "text/csv": {
            "schema": {
                "type": "string",
                "description": f"A header of {', '.join(_COLUMNS)}; tags by `;`.",
            }
        },
    },
}
_FIELD = re.compile(r"at `\$\.(\w+)|field `(\w+)`")


class TooManyItems(Invalid):
    """More rows than one request may carry."""

    code = "too_many_items"


def read_devices(content_type: str, body: bytes) -> list[DeviceIn]:
    """The devices in `body`.

    Raises `Invalid` whose `index` (from 0) and `field` name what is wrong, `TooManyItems`, and
    litestar's `HTTPException` 415 for what is neither JSON nor CSV.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return list(_csv_devices(body))
    if kind in ("application/json", ""):
        return [_device(index, row) for index, row in enumerate(_limited(_json_rows(body)))]
    raise HTTPException(status_code=415)


def _limited(rows: list[Any]) -> list[Any]:
    if len(rows) > MAX_DEVICES:
        raise TooManyItems(f"{len(rows)} devices in one request; at most {MAX_DEVICES} are made.")
    if not rows:
        raise Invalid("The body holds no device.")
    return rows


def _json_rows(body: bytes) -> list[Any]:
    try:
        rows = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Invalid("The body is not JSON.") from None
    if not isinstance(rows, list):
        raise Invalid("The body is not an array of devices.")
    return rows


def _csv_devices(body: bytes) -> Iterator[DeviceIn]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not CSV in UTF-8: {error}.") from None
    lines = [line for line in lines if line]
    header = [name.strip() for name in lines[0]] if lines else []
    _check_header(header)
    for index, line in enumerate(_limited(lines[1:])):
        if len(line) > len(header):
            raise _wrong(index, "More cells than the header has", None)
        cells = dict(zip(header, line, strict=False))
        row: dict[str, Any] = {name: cell for name, cell in cells.items() if cell.strip()}
        if "tags" in row:
            row["tags"] = [tag.strip() for tag in row["tags"].split(";") if tag.strip()]
        yield _device(index, row, strict=False)


def _check_header(header: list[str]) -> None:
    for name in header:
        if name not in _COLUMNS or header.count(name) > 1:
            raise Invalid(f"The columns are {', '.join(_COLUMNS)}, each once.", field=name[:128])
    if "thing_name" not in header:
        raise Invalid("The header lacks thing_name.", field="thing_name")


def _device(index: int, row: Any, *, strict: bool = True) -> DeviceIn:
    try:
        return msgspec.convert(row, DeviceIn, strict=strict)
    except msgspec.ValidationError as error:
        found = _FIELD.search(str(error))
        field = (found[1] or found[2]) if found else None
        raise _wrong(index, str(error), field) from None


def _wrong(index: int, detail: str, field: str | None) -> Invalid:
    wrong = Invalid(f"Row {index}: {detail}.", field=field)
    wrong.extra["index"] = index
    return wrong
