"""The fast path gives what the decoder gives, and PostgreSQL reads the rows as they were packed."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from paqett.readings.decode import MAX_ITEMS, Decoded, decode
from paqett.readings.directory import Entry
from paqett.readings.plain import Columns, read_plain
from paqett.readings.rows import (
    HEADER,
    TRAILER,
    pack_numbers,
    pack_texts,
    sort_numbers,
    sort_texts,
)
from paqett.readings.values import kind_of

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_750_000_000 * SECOND
NEWEST = NOW + 600 * SECOND
RETENTION = 7 * DAY

SERIES = {
    "t": (1, "number"),
    "h": (2, "number"),
    "a.b": (3, "number"),
    "ts": (4, "number"),
    "values": (5, "number"),
    "on": (7, "boolean"),
    "a.on": (8, "boolean"),
    "mode": (9, "text"),
}


def entry_of(clock: str = "device") -> Entry:
    row = {
        "device_id": "d",
        "account_id": 1,
        "tier": "own",
        "moving_from": None,
        "closing": False,
        "retention_us": RETENTION,
        "clock": clock,
    }
    entry = Entry(row, None)
    for metric, (series_id, kind) in SERIES.items():
        entry.learn(metric, series_id, kind)
    return entry


def plain(payload: bytes, clock: str = "device") -> tuple[tuple[int, int] | None, Columns]:
    """What the fast path says, after columns that hold something already."""
    columns = Columns()
    columns.add(99, NOW, 0.5, 0)
    span = read_plain(payload, entry_of(clock), NOW, NEWEST, 3, columns)
    return span, columns


def long_way(payload: bytes, clock: str = "device") -> Decoded:
    return decode(
        payload,
        received_us=NOW,
        oldest_us=NOW - RETENTION,
        newest_us=NEWEST,
        use_device_clock=clock == "device",
    )


def points(columns: Columns) -> list[tuple[int, int, float]]:
    return list(
        zip(columns.series[1:], columns.times[1:], map(float, columns.values[1:]), strict=True)
    )


# --- messages, written as text so that keys may stand twice and numbers in any spelling ---


def write_object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"


def write_array(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


numbers = st.one_of(
    st.integers(-(2**53) - 2, 2**53 + 2).map(str),
    st.sampled_from(["0", "-0", "-0.0", "1e999", "1E5", "5e-324", str(2**53), str(2**53 + 1)]),
    st.sampled_from([str(-(2**53) - 1), str(2**63), str(2**64), "9" * 40, "1e308", "0.1"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
flags = st.sampled_from(["true", "false"])
times = st.one_of(
    st.integers(NOW - 6 * DAY, NOW),
    st.integers(NOW - 6 * DAY, NOW),
    st.sampled_from([NOW, NEWEST, NEWEST + 1, NOW - RETENTION, NOW - RETENTION - 1, 0, -1, 10**18]),
)


@st.composite
def stamps(draw: st.DrawFn) -> str:
    """Every unit and spelling of a `ts`, in the window mostly."""
    time_us = draw(times)
    return draw(
        st.sampled_from(
            [
                str(time_us),
                str(time_us // 1000),
                str(time_us // SECOND),
                str(time_us * 1000),
                repr(time_us / 1e6),
                repr(time_us / 1e3),
                json.dumps(str(time_us)),
                "978307199",
                json.dumps(datetime.fromtimestamp(min(NOW, abs(time_us)) / 1e6, UTC).isoformat()),
                "null",
            ]
        )
    )


odd_stamps = st.sampled_from(['""', '"yesterday"', "true", "{}", "[]", "1e999", "1e300", '"nan"'])
texts = st.sampled_from(['"auto"', '"ON"', '"off"', '""', '"nan"', '"21.5"', '"\\u0000"'])
texts |= st.sampled_from(['"\\ud800"', json.dumps("x" * 513), "null", "[]", "[1]", "{}"])
odd_names = st.sampled_from(["", " ", "a/b", "a\0", "\u200b", "x" * 129, "ts", "values", "new"])
good_pairs = st.one_of(
    st.tuples(st.sampled_from(["t", "h", "a.b"]), numbers),
    st.tuples(st.sampled_from(["on", "a.on"]), flags),
)
nested = st.lists(st.tuples(st.sampled_from(["b", "on", "c"]), numbers | flags), max_size=2)
odd_pairs = st.one_of(
    st.tuples(odd_names | st.sampled_from(["t", "on", "mode"]), numbers | flags | texts),
    st.tuples(st.sampled_from(["a", "n", "values"]), nested.map(write_object)),
    st.tuples(st.just("ts"), odd_stamps),
)


@st.composite
def items(draw: st.DrawFn) -> str:
    pairs = draw(st.lists(good_pairs, max_size=4))
    if draw(st.integers(0, 5)) == 0:
        pairs.insert(draw(st.integers(0, len(pairs))), draw(odd_pairs))
    stamp = [("ts", draw(stamps()))] if draw(st.booleans()) else []
    if draw(st.booleans()):
        beside = [draw(odd_pairs)] if draw(st.integers(0, 9)) == 0 else []
        pairs = [("values", write_object(pairs)), *beside]
    return write_object(draw(st.permutations([*stamp, *pairs])))


messages = st.one_of(
    items(),
    st.lists(items(), max_size=6).map(write_array),
    st.lists(items() | numbers | texts, max_size=3).map(write_array),
    numbers | texts,
    st.text(max_size=20),
)


@settings(max_examples=1000, deadline=None)
@given(messages, st.sampled_from(["device", "server"]))
@example("[" * 5000, "device")
@example('{"t":1,"t":true}', "device")
@example('{"on":true,"on":false}', "device")
@example('{"ts":null,"values":{"ts":5,"values":6}}', "device")
@example('\ufeff{"t":1}', "device")
def test_the_fast_path_gives_what_the_decoder_gives_or_nothing(message: str, clock: str) -> None:
    payload = message.encode("utf-8", "surrogatepass")
    span, columns = plain(payload, clock)
    event("the fast path takes it" if span else "the decoder takes it")
    assert len({len(getattr(columns, name)) for name in Columns.__slots__}) == 1
    assert (columns.series[0], columns.times[0], columns.values[0]) == (99, NOW, 0.5)
    if span is None:
        assert len(columns.series) == 1
        return
    decoded = long_way(payload, clock)
    assert decoded.rejections == []
    assert all(kind_of(value) == SERIES[metric][1] for _, metric, value in decoded.points)
    expected = [(SERIES[m][0], time_us, float(value)) for time_us, m, value in decoded.points]
    assert repr(points(columns)) == repr(expected)  # repr: -0.0 is not 0.0
    assert set(columns.numbers[1:]) <= {3}
    if expected:
        stamps_seen = [time_us for _, time_us, _ in expected]
        assert span[0] <= min(stamps_seen) <= max(stamps_seen) <= span[1]


@pytest.mark.parametrize(
    "message",
    [
        {"t": 21.5},
        {"t": 21.5, "h": 48, "on": True},
        {"ts": NOW, "t": 1},
        {"ts": NOW // 1000, "values": {"t": 1, "h": 2}},
        {"ts": NOW / 1e6, "t": 1},
        {"ts": "2025-06-15T15:06:40+00:00", "t": 1},
        [{"t": 1}, {"ts": NOW - 5, "t": 2}, {"values": {"on": False}}],
        [{"t": number} for number in range(MAX_ITEMS)],
        {},
    ],
)
def test_what_devices_commonly_send_takes_the_fast_path(message: Any) -> None:
    span, columns = plain(json.dumps(message).encode())
    assert span is not None
    assert len(columns.series) - 1 == len(long_way(json.dumps(message).encode()).points)


@pytest.mark.parametrize(
    "message",
    [
        {"t": True},
        {"on": 1},
        {"on": "ON"},
        {"mode": "auto"},
        {"unknown": 1},
        {"a": {"b": 1}},
        {"t": None},
        {"t": 2**53 + 1},
        {"t": 1, "ts": "yesterday"},
        {"t": 1, "ts": NEWEST + 1},
        {"t": 1, "ts": NOW - RETENTION - 1},
        [{"t": 1}] * (MAX_ITEMS + 1),
        [{"t": 1}, {"t": "x"}],
        [],
        5,
    ],
)
def test_one_thing_out_of_the_ordinary_sends_the_whole_message_the_other_way(message: Any) -> None:
    span, columns = plain(json.dumps(message).encode())
    assert span is None
    assert columns.series == [99]
    assert columns.times == [NOW]


def test_a_metric_that_changes_its_kind_leaves_the_fast_path() -> None:
    entry = entry_of()
    entry.learn("t", 1, "text")
    assert read_plain(b'{"t":1}', entry, NOW, NEWEST, 0, Columns()) is None
    entry.learn("t", 1, "boolean")
    assert read_plain(b'{"t":1}', entry, NOW, NEWEST, 0, Columns()) is None
    assert read_plain(b'{"t":true}', entry, NOW, NEWEST, 0, Columns()) == (NOW, NOW)


# --- rows ---

came = st.lists(
    st.tuples(st.integers(1, 4), st.integers(NOW, NOW + 4), st.floats(width=64), st.integers(0, 5)),
    max_size=40,
)


@given(came)
def test_of_equal_identities_the_first_to_come_stays(
    rows: list[tuple[int, int, float, int]],
) -> None:
    columns = Columns()
    for series_id, time_us, value, number in rows:
        columns.add(series_id, time_us, value, number)
    kept: dict[tuple[int, int], tuple[float, int]] = {}
    again = []
    for series_id, time_us, value, number in rows:
        if (series_id, time_us) in kept:
            again.append((number, time_us))
        else:
            kept[series_id, time_us] = value, number
    found = sort_numbers(columns)
    identities = list(zip(found.series.tolist(), found.times.tolist(), strict=True))
    assert identities == sorted(kept)
    stays = list(zip(found.values.tolist(), found.numbers.tolist(), strict=True))
    assert repr(stays) == repr([kept[identity] for identity in identities])  # repr: nan
    assert sorted(found.again) == sorted(again)

    text_rows = [(series, time_us, number, str(v)) for series, time_us, v, number in rows]
    texts_kept, texts_again = sort_texts(text_rows)
    assert [row[:2] for row in texts_kept] == sorted(kept)
    assert [(row[3], row[2]) for row in texts_kept] == [
        (str(kept[row[:2]][0]), kept[row[:2]][1]) for row in texts_kept
    ]
    assert sorted(texts_again) == sorted(again)


def test_postgresql_reads_back_what_was_packed(database_url: str) -> None:
    edge = [-1.5, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 2.0**53, 0.1, float("inf")]
    stamps_us = [978_307_200_000_000, 946_684_800_000_000, 0, -5, NOW, NOW + 1, 10**16, 10**15]
    series = [1, 2, 2**31 - 1, 7, 8, 9, 10, 11]
    accounts = [2**31 - 1, 1, 1, 1, 1, 1, 1, 3]
    text = ["auto", "", "grün 😀", "a\tb\nc\\", "\x01\x7f", "x" * 512, "\\N", "\\."]
    arrays = (np.array(column, np.int64) for column in (series, stamps_us, accounts))
    packed = pack_numbers(*arrays, np.array(edge, np.float64))
    # rows name the place of their message, accounts stand by message
    text_rows = [(series[i], stamps_us[i], i, text[i]) for i in range(8)]
    packed_text = pack_texts(text_rows, accounts)
    with psycopg.connect(database_url) as conn:
        for table, kind, data in (("n", "float8", packed), ("w", "text", packed_text)):
            conn.execute(
                f"CREATE TEMP TABLE {table}"
                f" (time timestamptz, account_id int, series_id int, value {kind})"
            )
            with conn.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(HEADER + data + TRAILER)
        shown = "SELECT (extract(epoch FROM time) * 1000000)::bigint, account_id, series_id, value"
        number_rows = conn.execute(f"{shown} FROM n").fetchall()
        word_rows = conn.execute(f"{shown} FROM w").fetchall()
    expected = list(zip(stamps_us, accounts, series, strict=True))
    assert [row[:3] for row in number_rows] == expected
    assert repr([row[3] for row in number_rows]) == repr(edge)
    assert [row[:3] for row in word_rows] == expected
    assert [row[3] for row in word_rows] == text


@pytest.mark.parametrize("pack", ["numbers", "texts"])
def test_no_rows_are_a_copy_of_nothing(database_url: str, pack: str) -> None:
    none = np.array([], np.int64)
    data = pack_numbers(none, none, none, none) if pack == "numbers" else pack_texts([], [])
    with psycopg.connect(database_url) as conn:
        conn.execute("CREATE TEMP TABLE n (time timestamptz, account int, series int, value text)")
        with conn.cursor().copy("COPY n FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(HEADER + data + TRAILER)
        assert conn.execute("SELECT count(*) FROM n").fetchone() == (0,)
