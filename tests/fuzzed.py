"""What must hold of any bytes that a device sends: the payload decoder's and the topic parser's.

`tests/fuzz/fuzz.py` looks for bytes of which it does not; `tests/fuzz/test_corpus.py` replays those
that are kept. Each target takes bytes and raises where something does not hold.
"""

import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from paqett.ingest.batcher import PREFIX, parse
from paqett.readings.decode import MAX_ITEMS, Decoded
from paqett.readings.directory import Entry
from paqett.readings.forms import MAX_LINES, decode_incoming
from paqett.readings.incoming import TELEMETRY, Incoming, Receipts
from paqett.readings.limits import AHEAD_US
from paqett.readings.metric_names import MAX_NAME_CHARACTERS, MAX_PATH_LEVELS, check_metric_name
from paqett.readings.plain import Columns, read_plain
from paqett.readings.values import MAX_TEXT_BYTES

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
_SECOND = 1_000_000
_NOW = 1_750_000_000 * _SECOND
_NEWEST = _NOW + AHEAD_US
_RETENTION = 7 * 86_400 * _SECOND
_CODE = re.compile(r"[a-z_]+")
_SERIES = {
    "t": (1, "number"), "h": (2, "number"), "a.b": (3, "number"), "on": (4, "boolean"),
    "mode": (5, "text"),
}  # fmt: skip
_DOORS = (
    (TELEMETRY, "json"), (f"{TELEMETRY}/a/b", "json"), (TELEMETRY, "ndjson"), (TELEMETRY, "csv"),
)  # fmt: skip


def payload(data: bytes) -> None:
    """The first byte says how it comes: bit 0 the server's clock, 1 and 2 a door."""
    how, body = (data[0] if data else 0), data[1:]
    where, form = _DOORS[how >> 1 & 3]
    incoming = Incoming("d", where, body, _NOW, form)
    entry = _entry("server" if how & 1 else "device")
    decoded = decode_incoming(incoming, entry)
    _holds(decoded, MAX_ITEMS if form == "json" else MAX_LINES)
    if how & 1:
        _has_times_of_its_own(incoming, decoded)
    if incoming.topic == TELEMETRY and form == "json":
        _equals_the_fast_path(body, decoded, entry)


def topic(data: bytes) -> None:
    """A topic's bytes as the broker hands them over, a line's end, a payload."""
    name, _, body = data.partition(b"\n")
    text = PREFIX + name.decode("utf-8", "replace")
    incoming = parse(text, body, _NOW)
    assert text in (f"{PREFIX}{incoming.device_id}/{incoming.topic}", PREFIX + incoming.device_id)
    assert "/" not in incoming.device_id
    first, slash, path = incoming.topic.partition("/")
    if first != TELEMETRY:
        return
    decoded = decode_incoming(incoming, _entry("server"))
    _holds(decoded, 1 if slash else MAX_ITEMS)
    _has_times_of_its_own(incoming, decoded)
    if slash:
        levels = path.split("/")
        bad = len(levels) > MAX_PATH_LEVELS or "" in levels
        assert bad == any(one.code == "bad_topic" for one in decoded.rejections)
        assert all(metric.startswith(levels[0][:1]) for _, metric, _ in decoded.points)


TARGETS: dict[str, Callable[[bytes], None]] = {"payload": payload, "topic": topic}


def _has_times_of_its_own(incoming: Incoming, decoded: Decoded) -> None:
    """Those set aside for the message; the device's next one has the times behind them."""
    receipts, device, body = Receipts(), incoming.device_id, incoming.payload
    receipts.stamp(device, body, _NOW, incoming.form, bare=incoming.topic == TELEMETRY)
    free_us = receipts.stamp(device, b"{}", _NOW)
    assert all(_NOW <= time_us < free_us for time_us, _, _ in decoded.points)


def _holds(decoded: Decoded, most_items: int) -> None:
    assert 0 <= decoded.items <= most_items
    assert len(decoded.points) == len(decoded.indexes)
    assert 0 <= decoded.stamped <= len(decoded.points)
    assert decoded.items or not decoded.points
    for (time_us, metric, value), index in zip(decoded.points, decoded.indexes, strict=True):
        assert 0 <= index < decoded.items
        assert _NOW - _RETENTION <= time_us <= _NEWEST
        assert check_metric_name(metric) == metric
        _is_stored(value)
    for one in decoded.rejections:
        assert one.points >= 1
        assert _CODE.fullmatch(one.code)
        one.detail.encode()
        assert one.metric is None or len(one.metric) <= MAX_NAME_CHARACTERS
        assert one.metric is None or not one.metric or one.metric.isprintable()


def _is_stored(value: Any) -> None:
    """PostgreSQL takes it as it is."""
    if type(value) is str:
        assert len(value.encode()) <= MAX_TEXT_BYTES
        assert "\0" not in value
    else:
        assert type(value) is bool or (type(value) is float and isfinite(value))


def _equals_the_fast_path(body: bytes, decoded: Decoded, entry: Entry) -> None:
    """What the fast path takes, it takes as the decoder does."""
    columns = Columns()
    if read_plain(body, entry, _NOW, _NEWEST, 0, columns) is None:
        assert columns.series == columns.times == columns.values == []
        return
    assert decoded.rejections == []
    names = {series: metric for metric, (series, _) in _SERIES.items()}
    taken = zip(columns.times, columns.series, columns.values, strict=True)
    fast = [(time_us, names[series], float(value)) for time_us, series, value in taken]
    assert fast == [(time_us, metric, float(value)) for time_us, metric, value in decoded.points]


def _entry(clock: str) -> Entry:
    row = {
        "device_id": "d", "account_id": 1, "tier": "own", "moving_from": None, "closing": False,
        "retention_us": _RETENTION, "clock": clock,
    }  # fmt: skip
    entry = Entry(row, None)
    for metric, (series_id, kind) in _SERIES.items():
        entry.learn(metric, series_id, kind)
    return entry
