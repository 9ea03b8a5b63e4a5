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

import json
from functools import lru_cache
from math import inf, isfinite
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from paqett.readings.timestamps import PayloadError, check_window, parse_number, parse_ts

Value: TypeAlias = float | bool | str
Point: TypeAlias = tuple[int, str, Value]

MAX_ITEMS: Final = 500
MAX_DEPTH: Final = 4
MAX_PATH_LEVELS: Final = 5
MAX_NAME_CHARACTERS: Final = 128
MAX_TEXT_BYTES: Final = 512
MAX_EXACT_INTEGER: Final = 2**53
_JSON_BEGINS: Final = tuple('{["-0123456789tfn')
_WORDS: Final[dict[str, bool | None]] = {
    "on": True,
    "off": False,
    "": None,
    "nan": None,
    "unknown": None,
    "unavailable": None,
}


class Rejection(msgspec.Struct, frozen=True):
    """One refusal: a value, an item or a whole message.

    `index` is the item's place in the array, 0 for a single object and for a whole message.
    `metric` is the dotted name of the refused value, made printable and cut to 128 characters,
    or None where the item or the message is refused. `code` is one of the product contract's
    codes, `detail` a sentence for people. `points` is how many values were lost, never less
    than 1, so that a refusal is always counted.
    """

    index: int
    metric: str | None
    code: str
    detail: str
    points: int = 1


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
        return _refuse_message(refused.code, refused.detail)
    window = (oldest_us, newest_us) if use_device_clock else None
    out = Decoded([], [], 1)
    if type(message) is dict:
        read_item(message, f"{name}." if name else "", received_us, 0, window, out)
    elif name:
        _collect({name: message}, "", 1, received_us, 0, out)
    elif type(message) is list:
        return _read_array(message, max_items, received_us, window)
    else:
        return _refuse_message("bad_json", "the payload is neither an object nor an array")
    return out


def dotted_path(path: str) -> str:
    """Return the metric name, or its beginning, that a topic path of 1 to 5 levels stands for.

    Beyond 128 characters it is cut to 129, too long for a name either way. Raises PayloadError
    ``bad_topic`` for an empty level or more than five.
    """
    levels = path.split("/")
    if len(levels) > MAX_PATH_LEVELS or not all(levels):
        raise PayloadError(
            "bad_topic", f"a path has 1 to {MAX_PATH_LEVELS} levels, and none of them is empty"
        )
    return ".".join(levels)[: MAX_NAME_CHARACTERS + 1]


# One look-up costs less than the checks, and a fleet uses the same few names over and over.
@lru_cache(maxsize=16_384)
def check_metric_name(name: str) -> str:
    """Return the name as it is stored, ``/`` as ``.`` (product contract: values).

    Raises PayloadError ``bad_metric_name`` unless it has 1 to 128 characters, all printable as
    `str.isprintable` has it: no control or format characters, no lone surrogates, no white space
    but the plain space.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise PayloadError(
            "bad_metric_name",
            f"a metric name is 1 to {MAX_NAME_CHARACTERS} printable characters",
        )
    return name.replace("/", ".")


def classify_value(value: object) -> Value | None:
    """Return the value as it is stored, or None for one to ignore (product contract: values).

    Numbers become float, bool and ON/OFF in any case bool, other strings stay text: "21.5" and
    "true" too. The words for "no value" and ON/OFF may have white space around them. Raises
    PayloadError ``bad_value`` for integers beyond ±2^53, numbers that are not finite, text beyond
    512 bytes of UTF-8 or that PostgreSQL cannot store (U+0000, lone surrogates), and all else.
    """
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        word = value.strip().lower()
        return _WORDS[word] if word in _WORDS else _check_text(value)
    if type(value) is float and isfinite(value):
        return value
    if type(value) is int:
        if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER:
            return float(value)
        raise PayloadError("bad_value", "an integer beyond 2^53 would not be stored exactly")
    if type(value) is float:
        raise PayloadError("bad_value", "the number is outside the range of a double")
    raise PayloadError("bad_value", "an array is not a value")


def read_text(text: str) -> float | str:
    """Return the number that text outside JSON stands for, or the text; then `classify_value`."""
    number = parse_number(text)
    return text if number is None else number


def _read_array(
    items: list[Any], max_items: int, received_us: int, window: tuple[int, int] | None
) -> Decoded:
    if len(items) > max_items:
        detail = f"{len(items)} items in one message; at most {max_items} are read"
        return _refuse_message("too_many_items", detail, sum(map(_count, items)))
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
            rejection = Rejection(index, _printable(name), refused.code, refused.detail)
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


def _refuse_message(code: str, detail: str, points: int = 1) -> Decoded:
    return Decoded([], [Rejection(0, None, code, detail, max(1, points))], 0)


def _printable(name: str) -> str:
    """A refused name as it can be shown and stored anywhere."""
    name = name[:MAX_NAME_CHARACTERS].replace("/", ".")
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def _check_text(text: str) -> str:
    if len(text) > MAX_TEXT_BYTES or "\0" in text:
        raise _bad_text()
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _bad_text() from None
    if size > MAX_TEXT_BYTES:
        raise _bad_text()
    return text


def _bad_text() -> PayloadError:
    return PayloadError(
        "bad_value", f"text is at most {MAX_TEXT_BYTES} bytes of valid UTF-8 without U+0000"
    )


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
