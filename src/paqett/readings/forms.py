"""The forms of a message: JSON, and over HTTP NDJSON, one item a line, and CSV `time,metric,value`.

All give what `decode` gives. A line is an item, counted from 0 without a heading and without
blank lines; what is wrong with one costs only that one.
"""

import csv
from collections.abc import Callable, Iterator
from functools import partial

from paqett.readings.decode import Decoded, decode, read_item, refuse_whole
from paqett.readings.directory import Entry
from paqett.readings.incoming import Incoming
from paqett.readings.limits import AHEAD_US
from paqett.readings.metric_names import check_metric_name
from paqett.readings.payload_json import parse_json
from paqett.readings.rejection import Rejection
from paqett.readings.timestamps import PayloadError, check_window, parse_ts
from paqett.readings.values import classify_value, read_text

MAX_LINES = 10_000
_HEADING = ["time", "metric", "value"]
_TOO_MANY = f"more than {MAX_LINES} lines in one request"


def decode_incoming(message: Incoming, entry: Entry) -> Decoded:
    """Read a message of the device of `entry`, whatever its form."""
    reading = _FORMS.get(message.form)
    if reading is None:
        path = message.topic[10:] or ("/" if message.topic[9:] else "")
        reading = partial(decode, path=path)
    return reading(
        message.payload,
        received_us=message.received_us,
        oldest_us=message.received_us - entry.retention_us,
        newest_us=message.received_us + AHEAD_US,
        use_device_clock=entry.use_device_clock,
    )


def decode_lines(
    payload: bytes,
    *,
    received_us: int,
    oldest_us: int,
    newest_us: int,
    use_device_clock: bool = True,
) -> Decoded:
    """Read NDJSON; the parameters are `decode`'s."""
    if _has_too_many(payload):
        return refuse_whole("too_many_items", _TOO_MANY)
    out = Decoded([], [], 0)
    window = (oldest_us, newest_us) if use_device_clock else None
    for index, line in enumerate(filter(None, map(bytes.strip, payload.split(b"\n")))):
        out.items = index + 1
        try:
            item = parse_json(line, text_allowed=False)
        except PayloadError as refused:
            out.rejections.append(Rejection(index, None, refused.code, refused.detail))
            continue
        if type(item) is dict:
            read_item(item, "", received_us + index, index, window, out)
        else:
            out.rejections.append(Rejection(index, None, "bad_json", "the line is not an object"))
    return out


def decode_csv(
    payload: bytes,
    *,
    received_us: int,
    oldest_us: int,
    newest_us: int,
    use_device_clock: bool = True,
) -> Decoded:
    """Read CSV `time,metric,value`, the heading optional; an empty time is the time of receipt."""
    if _has_too_many(payload):
        return refuse_whole("too_many_items", _TOO_MANY)
    out = Decoded([], [], 0)
    window = (oldest_us, newest_us) if use_device_clock else None
    try:
        text = str(payload, "utf-8-sig")
    except UnicodeDecodeError:
        return refuse_whole("bad_json", "not UTF-8")
    for index, row in enumerate(_rows(text)):
        out.items = index + 1
        try:
            _read_row(row, received_us + index, index, window, out)
        except PayloadError as refused:
            metric = row[1][:128] if len(row) > 1 and row[1].isprintable() else None
            out.rejections.append(Rejection(index, metric, refused.code, refused.detail))
    return out


def _has_too_many(payload: bytes) -> bool:
    """Whether it is more lines than are read; the last may lack its end."""
    return payload.count(b"\n") + (not payload.endswith(b"\n")) > MAX_LINES


def _rows(text: str) -> Iterator[list[str]]:
    rows = (row for row in _safely(text) if any(map(str.strip, row)))
    first = next(rows, None)
    if first is not None and [word.strip().lower() for word in first] != _HEADING:
        yield first
    yield from rows


def _safely(text: str) -> Iterator[list[str]]:
    """Each line by itself: a stray quotation mark must not swallow the lines after it.

    A line ends with \\n or \\r\\n and nothing else that Python takes for an end: `Receipts` counts
    the times of receipt a message takes by its \\n.
    """
    for line in text.split("\n"):
        try:
            yield next(csv.reader([line.removesuffix("\r")]), [])
        except csv.Error:
            yield [line]


def _read_row(
    row: list[str], time_us: int, index: int, window: tuple[int, int] | None, out: Decoded
) -> None:
    if len(row) != len(_HEADING):
        raise PayloadError("bad_json", "a line is time,metric,value")
    time, metric, text = row
    value = classify_value(read_text(text.strip()))
    if value is None:
        return
    name = check_metric_name(metric.strip())
    if time.strip() and window is not None:
        time_us = parse_ts(time)
        check_window(time_us, *window)
        out.stamped += 1
    out.points.append((time_us, name, value))
    out.indexes.append(index)


_FORMS: dict[str, Callable[..., Decoded]] = {"ndjson": decode_lines, "csv": decode_csv}
