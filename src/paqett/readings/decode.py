"""From one telemetry payload to points: the product contract's payload, values and names.

Pure: no I/O, no clock, no knowledge of MQTT or HTTP. Times are whole microseconds (µs) since
1970-01-01T00:00:00Z. A point is one value of one metric at one time, a plain tuple
``(time_us, metric, value)``. What is refused becomes a `Rejection` and never costs its neighbours.

The forms of a message (product contract: payload):

- a flat or nested object of metrics; a member ``ts`` is its time, not a metric;
- the same with the metrics inside a member ``values``. A ``values`` that is an object is always
  read this way, with or without ``ts``, and members beside it stay metrics; any other ``values``
  is an ordinary metric of that name. Inside ``values`` the name ``ts`` is a metric;
- an array of these, at most `MAX_ITEMS`;
- under a path (``telemetry/{path…}``): an object, whose names the dotted path prefixes, or one
  JSON scalar or text, which is the metric named by the dotted path. There an array is one bad
  value, and text that begins with ``{`` is a broken object, not text.

Where the contract is silent:

- a key written twice in one JSON object counts once, with its last value; two spellings that
  flatten to one name (``{"a.b": 1, "a": {"b": 2}}``) give two points, the first spelling first;
- depth counts the levels of keys in the payload, without the path and without ``values``;
- ``"ts": null`` is no ``ts``, as null is no value elsewhere.
"""

from math import inf
from typing import Any, Final, TypeAlias

import msgspec

from paqett.readings.metric_names import (
    MAX_NAME_CHARACTERS,
    check_metric_name,
    dotted_path,
    printable,
)
from paqett.readings.payload_json import parse_json
from paqett.readings.rejection import Rejection
from paqett.readings.timestamps import PayloadError, check_window, parse_ts
from paqett.readings.values import MAX_EXACT_INTEGER, Value, classify_value

Point: TypeAlias = tuple[int, str, Value]

MAX_ITEMS: Final = 500
MAX_DEPTH: Final = 4


class Decoded(msgspec.Struct):
    """What one message holds, in the order of the payload.

    `items` is how many items were read, 0 for a message refused whole: times of receipt lie in
    ``[received_us, received_us + items)``. `stamped` is how many of `points` carry the device's
    own time; the others carry the time of receipt. `indexes` holds the item of each point.
    """

    points: list[Point]
    rejections: list[Rejection]
    items: int
    stamped: int = 0
    indexes: list[int] = []


def decode(
    payload: bytes | memoryview,
    *,
    received_us: int,
    oldest_us: int,
    newest_us: int,
    path: str = "",
    max_items: int = MAX_ITEMS,
    use_device_clock: bool = True,
) -> Decoded:
    """Read one message (product contract: payload). Never raises for what a device can send.

    `received_us` is the time of receipt in µs, already made strictly increasing for the device;
    item i without ``ts`` gets ``received_us + i``. A ``ts`` from `oldest_us` to `newest_us`, both
    included, is accepted. `path` is what follows ``telemetry/`` in the topic, "" for the bare
    topic. With `use_device_clock` false a ``ts`` is dropped unread, even a malformed one.
    """
    try:
        name = dotted_path(path) if path else ""
        message = parse_json(payload, text_allowed=path != "")
    except PayloadError as refused:
        return refuse_whole(refused.code, refused.detail)
    window = (oldest_us, newest_us) if use_device_clock else None
    out = Decoded([], [], 1)
    if type(message) is dict:
        read_item(message, f"{name}." if name else "", received_us, 0, window, out)
    elif name:
        _collect({name: message}, "", 1, received_us, 0, out)
    elif type(message) is list:
        return _read_array(message, max_items, received_us, window)
    else:
        return refuse_whole("bad_json", "the payload is neither an object nor an array")
    return out


def _read_array(
    items: list[Any], max_items: int, received_us: int, window: tuple[int, int] | None
) -> Decoded:
    if len(items) > max_items:
        detail = f"{len(items)} items in one message; at most {max_items} are read"
        return refuse_whole("too_many_items", detail, sum(map(_count, items)))
    out = Decoded([], [], len(items))
    for index, item in enumerate(items):
        if type(item) is dict:
            read_item(item, "", received_us + index, index, window, out)
        else:
            out.rejections.append(Rejection(index, None, "bad_json", "the item is not an object"))
    return out


def read_item(
    item: dict[str, Any],
    prefix: str,
    time_us: int,
    index: int,
    window: tuple[int, int] | None,
    out: Decoded,
) -> None:
    """Add an item's points to `out`; `time_us` is for an item without ``ts``, or no `window`."""
    ts = item.pop("ts", None)
    if ts is None or window is None:
        _collect_item(item, prefix, time_us, index, out)
        return
    try:
        time_us = parse_ts(ts)
        check_window(time_us, *window)
    except PayloadError as refused:
        lost = max(1, _count(item))
        out.rejections.append(Rejection(index, None, refused.code, refused.detail, lost))
        return
    before = len(out.points)
    _collect_item(item, prefix, time_us, index, out)
    out.stamped += len(out.points) - before


def _collect_item(
    item: dict[str, Any], prefix: str, time_us: int, index: int, out: Decoded
) -> None:
    if type(item.get("values")) is dict:
        _collect(item.pop("values"), prefix, 1, time_us, index, out)
    _collect(item, prefix, 1, time_us, index, out)


def _collect(
    values: dict[str, Any], prefix: str, depth: int, time_us: int, index: int, out: Decoded
) -> None:
    """Add each value to `out`; the hot loop, so numbers and booleans are judged in place."""
    points = out.points
    for key, found in values.items():
        name = prefix + key
        kind = type(found)
        value: Value | None
        try:
            if (kind is float and -inf < found < inf) or kind is bool:
                value = found
            elif kind is int and -MAX_EXACT_INTEGER <= found <= MAX_EXACT_INTEGER:
                value = float(found)
            elif kind is dict:
                _collect_nested(found, name, depth, time_us, index, out)
                continue
            else:
                value = classify_value(found)
            if value is not None:
                points.append((time_us, check_metric_name(name), value))
                out.indexes.append(index)
        except PayloadError as refused:
            rejection = Rejection(index, printable(name), refused.code, refused.detail)
            out.rejections.append(rejection)


def _collect_nested(
    values: dict[str, Any], name: str, depth: int, time_us: int, index: int, out: Decoded
) -> None:
    if depth < MAX_DEPTH:
        # Cut where it is too long anyway: one long key must not be copied for each of its values.
        prefix = f"{name}."[: MAX_NAME_CHARACTERS + 1]
        _collect(values, prefix, depth + 1, time_us, index, out)
    elif values:
        raise PayloadError("bad_value", f"objects nest at most {MAX_DEPTH} levels deep")


def _count(item: object) -> int:
    """How many values an item holds, good and bad, ignored ones left out; 1 if not an object."""
    if type(item) is not dict:
        return 1
    item.pop("ts", None)
    scratch = Decoded([], [], 1)
    _collect_item(item, "", 0, 0, scratch)
    return len(scratch.points) + len(scratch.rejections)


def refuse_whole(code: str, detail: str, points: int = 1) -> Decoded:
    """A message of which nothing is read; `points` are the values lost with it."""
    return Decoded([], [Rejection(0, None, code, detail, max(1, points))], 0)
