"""The product contract's payload, values and names, as the decoder reads them."""

import json
import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paqett.readings.decode import MAX_ITEMS, Decoded, decode
from paqett.readings.metric_names import check_metric_name
from paqett.readings.rejection import Rejection
from paqett.readings.timestamps import CLOCK_SET_US, PayloadError, check_window, parse_ts
from paqett.readings.values import MAX_EXACT_INTEGER, classify_value, read_text

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_750_000_000 * SECOND  # 2025-06-15T15:06:40Z
OLDEST = NOW - 7 * DAY
NEWEST = NOW + 600 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(payload: Any, path: str = "", **options: Any) -> Decoded:
    """Decode bytes as they are, text as UTF-8, and anything else as JSON."""
    if isinstance(payload, str):
        payload = payload.encode()
    elif not isinstance(payload, bytes | memoryview):
        payload = json.dumps(payload).encode()
    window = {"received_us": NOW, "oldest_us": OLDEST, "newest_us": NEWEST}
    return decode(payload, path=path, **(window | options))


def shortened(parameter: str) -> str:
    """The name of a test's parameter, where it is long."""
    return ascii(parameter[:20])


def values(decoded: Decoded) -> dict[str, Any]:
    return {metric: value for _, metric, value in decoded.points}


def codes(decoded: Decoded) -> list[tuple[int, str | None, str]]:
    return [(one.index, one.metric, one.code) for one in decoded.rejections]


def assert_only(decoded: Decoded, code: str) -> Rejection:
    """The message is refused whole with `code`, and no time of receipt is used up."""
    assert decoded.points == []
    assert decoded.items == 0
    assert codes(decoded) == [(0, None, code)]
    return decoded.rejections[0]


class TestForms:
    def test_a_flat_object_gives_one_point_per_member_at_the_time_of_receipt(self) -> None:
        decoded = read('{"temperature": 21.5, "humidity": 48, "door": true, "state": "idle"}')
        assert decoded.points == [
            (NOW, "temperature", 21.5),
            (NOW, "humidity", 48.0),
            (NOW, "door", True),
            (NOW, "state", "idle"),
        ]
        assert decoded.rejections == []
        assert (decoded.items, decoded.stamped) == (1, 0)

    def test_an_object_with_ts_and_values_carries_the_devices_time(self) -> None:
        decoded = read({"ts": NOW // 1000, "values": {"a": 1, "b": 2}})
        assert decoded.points == [(NOW, "a", 1.0), (NOW, "b", 2.0)]
        assert decoded.stamped == 2

    def test_ts_beside_the_metrics_is_their_time_and_no_metric(self) -> None:
        decoded = read({"a": 1, "ts": (NOW - DAY) // 1000, "b": 2})
        assert decoded.points == [(NOW - DAY, "a", 1.0), (NOW - DAY, "b", 2.0)]

    def test_an_object_named_values_holds_the_metrics_without_ts_too(self) -> None:
        assert read({"values": {"a": 1, "b": 2}}).points == [(NOW, "a", 1.0), (NOW, "b", 2.0)]

    def test_metrics_beside_values_are_kept(self) -> None:
        decoded = read({"ts": NOW // 1000, "values": {"a": 1}, "b": 2})
        assert values(decoded) == {"a": 1.0, "b": 2.0}
        assert decoded.stamped == 2

    @pytest.mark.parametrize(("given_value", "kept"), [(3, 3.0), ("x", "x"), (True, True)])
    def test_values_that_is_no_object_is_a_metric(self, given_value: Any, kept: Any) -> None:
        assert values(read({"values": given_value})) == {"values": kept}

    def test_values_that_is_an_array_is_a_bad_value(self) -> None:
        assert codes(read({"values": [1], "a": 1})) == [(0, "values", "bad_value")]

    def test_ts_inside_values_is_a_metric(self) -> None:
        assert read({"values": {"ts": 5}}).points == [(NOW, "ts", 5.0)]

    def test_item_i_of_an_array_without_ts_is_i_microseconds_later(self) -> None:
        decoded = read([{"a": 1}, {"a": 2, "b": 3}, {"a": 4}])
        assert decoded.points == [
            (NOW, "a", 1.0),
            (NOW + 1, "a", 2.0),
            (NOW + 1, "b", 3.0),
            (NOW + 2, "a", 4.0),
        ]
        assert decoded.items == 3

    def test_an_array_may_mix_stamped_and_unstamped_items(self) -> None:
        decoded = read([{"ts": OLDEST // 1000, "a": 1}, {"a": 2}])
        assert decoded.points == [(OLDEST, "a", 1.0), (NOW + 1, "a", 2.0)]
        assert (decoded.items, decoded.stamped) == (2, 1)

    @pytest.mark.parametrize("payload", ["{}", "[]", "[{}, {}]", '{"values": {}}', '{"a": {}}'])
    def test_what_is_empty_is_accepted_as_no_points(self, payload: str) -> None:
        decoded = read(payload)
        assert (decoded.points, decoded.rejections) == ([], [])

    def test_five_hundred_items_are_read(self) -> None:
        assert len(read([{"a": 1}] * MAX_ITEMS).points) == MAX_ITEMS

    def test_one_item_more_refuses_the_message_and_counts_its_points(self) -> None:
        payload = [{"ts": 1, "values": {"a": 1, "b": []}, "c": None}] * MAX_ITEMS + [7]
        rejection = assert_only(read(payload), "too_many_items")
        assert rejection.points == 2 * MAX_ITEMS + 1
        assert "501" in rejection.detail
        assert "500" in rejection.detail

    def test_the_limit_of_items_is_the_callers_to_choose(self) -> None:
        assert_only(read([{}, {}], max_items=1), "too_many_items")

    @pytest.mark.parametrize("item", [1, "x", None, True, [{"a": 1}]])
    def test_an_item_that_is_no_object_costs_only_itself(self, item: Any) -> None:
        decoded = read([{"a": 1}, item, {"a": 3}])
        assert decoded.points == [(NOW, "a", 1.0), (NOW + 2, "a", 3.0)]
        assert codes(decoded) == [(1, None, "bad_json")]
        assert decoded.items == 3

    def test_the_last_of_a_key_written_twice_counts(self) -> None:
        assert read('{"a": 1, "a": 2}').points == [(NOW, "a", 2.0)]

    def test_two_spellings_of_one_name_give_two_points_in_order(self) -> None:
        decoded = read({"a": {"b": 1}, "a.b": 2, "a/b": 3})
        assert decoded.points == [(NOW, "a.b", 1.0), (NOW, "a.b", 2.0), (NOW, "a.b", 3.0)]

    def test_a_memoryview_is_read_as_bytes_are(self) -> None:
        for payload, path in [(b'{"a": 1}', ""), (b'{"a": 1e999}', ""), (b"ON", "relay")]:
            assert read(memoryview(payload), path) == read(payload, path)


class TestBadJson:
    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b" ",
            b"{",
            b'{"a": 1,}',
            b'{"a": 1} x',
            b"{'a': 1}",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b'{"a": -Infinity}',
            b'{"a": 1e999, "b": NaN}',
            b'{"a": "\xff"}',
            b'{"\xff": 1}',
            b'{"a": "\xed\xa0\x80"}',
            b'{"a": "\n"}',
            b'{"a": 01}',
            b"\xff\xfe{\x00}\x00",
            b"hello",
            b"21.5",
            b'"text"',
            b"true",
            b"null",
            b"NaN",
            b'\xc2\xa0{"a": 1}',
        ],
    )
    def test_what_is_no_json_object_or_array_is_refused_on_the_bare_topic(
        self, payload: bytes
    ) -> None:
        assert assert_only(read(payload), "bad_json").points == 1

    @pytest.mark.parametrize("path", ["", "a/b"])
    @pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":[', b'{"x":1e999,"a":'])
    def test_a_bomb_of_nesting_is_refused(self, opening: bytes, path: str) -> None:
        assert_only(read(opening * (200_000 // len(opening)), path), "bad_json")

    def test_a_byte_order_mark_is_tolerated(self) -> None:
        assert values(read(b'\xef\xbb\xbf{"a": 1}')) == {"a": 1.0}
        assert values(read(b"\xef\xbb\xbf21.5", "a")) == {"a": 21.5}


class TestNesting:
    def test_nested_objects_flatten_with_dots_to_depth_four(self) -> None:
        payload = {"a": {"b": {"c": {"d": 1}}, "e": 2}}
        assert values(read(payload)) == {"a.b.c.d": 1.0, "a.e": 2.0}

    def test_deeper_is_one_bad_value_and_costs_nothing_else(self) -> None:
        decoded = read({"a": {"b": {"c": {"d": {"e": 1, "f": 2}, "g": 3}}}})
        assert values(decoded) == {"a.b.c.g": 3.0}
        assert codes(decoded) == [(0, "a.b.c.d", "bad_value")]

    def test_an_empty_object_is_nothing_at_any_depth(self) -> None:
        decoded = read({"a": {"b": {"c": {"d": {}}}}})
        assert (decoded.points, decoded.rejections) == ([], [])

    def test_depth_counts_neither_the_path_nor_values(self) -> None:
        payload = {"values": {"a": {"b": {"c": {"d": 1}}}}}
        assert values(read(payload, "v/w/x/y/z")) == {"v.w.x.y.z.a.b.c.d": 1.0}

    def test_values_below_a_name_that_is_too_long_are_refused_one_by_one(self) -> None:
        decoded = read({"x" * 60_000: {str(n): n for n in range(10_000)}, "a": 1})
        assert values(decoded) == {"a": 1.0}
        assert codes(decoded) == [(0, "x" * 128, "bad_metric_name")] * 10_000


class TestValues:
    @pytest.mark.parametrize("number", [0, 1, -1, 21.5, -0.001, 1e300, MAX_EXACT_INTEGER])
    def test_a_number_becomes_a_double(self, number: float) -> None:
        (value,) = values(read({"a": number})).values()
        assert type(value) is float
        assert value == number

    @pytest.mark.parametrize("sign", [1, -1])
    def test_integers_are_accepted_up_to_two_to_the_fifty_third(self, sign: int) -> None:
        edge = sign * MAX_EXACT_INTEGER
        decoded = read({"in": edge, "out": edge + sign, "b": 1})
        assert values(decoded) == {"in": float(edge), "b": 1.0}
        assert codes(decoded) == [(0, "out", "bad_value")]

    @pytest.mark.parametrize(
        "number",
        [
            "18446744073709551615",
            "18446744073709551616",
            "9" * 400,
            "-" + "9" * 6000,
            "1e999",
            "-1e999",
            "9" * 400 + ".5",
        ],
        ids=shortened,
    )
    def test_a_number_no_double_holds_costs_only_itself(self, number: str) -> None:
        decoded = read(f'[{{"a": {number}, "b": 1}}, {{"c": 2}}]')
        assert decoded.points == [(NOW, "b", 1.0), (NOW + 1, "c", 2.0)]
        assert codes(decoded) == [(0, "a", "bad_value")]

    @pytest.mark.parametrize("word", ["ON", "on", "On", "oN"])
    def test_on_is_true_in_any_case(self, word: str) -> None:
        assert values(read({"a": word}))["a"] is True

    @pytest.mark.parametrize("word", ["OFF", "off", "Off"])
    def test_off_is_false_in_any_case(self, word: str) -> None:
        assert values(read({"a": word}))["a"] is False

    @pytest.mark.parametrize("word", ["true", "false", "21.5", "1", "open", "null", "inf", "é 🙂"])
    def test_any_other_string_stays_text(self, word: str) -> None:
        assert values(read({"a": word})) == {"a": word}

    @pytest.mark.parametrize(
        "nothing", [None, "", " ", "nan", "NaN", "unknown", "Unknown", "unavailable", " NAN\n"]
    )
    def test_a_word_for_no_value_is_ignored(self, nothing: Any) -> None:
        decoded = read({"a": nothing, "b": 1})
        assert values(decoded) == {"b": 1.0}
        assert decoded.rejections == []

    @pytest.mark.parametrize(
        ("text", "accepted"),
        [("x" * 512, True), ("x" * 513, False), ("é" * 256, True), ("é" * 256 + "x", False)],
    )
    def test_text_is_measured_in_bytes_of_utf8(self, text: str, accepted: bool) -> None:
        decoded = read(json.dumps({"a": text}, ensure_ascii=False))
        assert values(decoded) == ({"a": text} if accepted else {})
        assert codes(decoded) == ([] if accepted else [(0, "a", "bad_value")])

    @pytest.mark.parametrize("escaped", [r"a\u0000b", r"\ud800", r"\udc00x", r"x\ud83d"])
    def test_text_postgresql_cannot_store_costs_only_itself(self, escaped: str) -> None:
        decoded = read(f'{{"a": "{escaped}", "b": 1}}')
        assert values(decoded) == {"b": 1.0}
        assert codes(decoded) == [(0, "a", "bad_value")]

    def test_a_surrogate_pair_is_one_character(self) -> None:
        assert values(read(r'{"a": "\ud83d\ude42", "b": 1e999}')) == {"a": "🙂"}

    @pytest.mark.parametrize("array", [[], [1], [{"a": 1}]])
    def test_an_array_is_a_bad_value(self, array: Any) -> None:
        decoded = read({"a": array, "b": {"c": array, "d": 1}})
        assert values(decoded) == {"b.d": 1.0}
        assert codes(decoded) == [(0, "a", "bad_value"), (0, "b.c", "bad_value")]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [], {}])
    def test_classifying_refuses_what_json_cannot_say_too(self, value: object) -> None:
        with pytest.raises(PayloadError) as caught:
            classify_value(value)
        assert caught.value.code == "bad_value"

    @pytest.mark.parametrize(
        ("value", "stored"), [(2, 2.0), (2.5, 2.5), (True, True), ("off", False), ("x", "x")]
    )
    def test_classifying_gives_the_stored_value(self, value: object, stored: Any) -> None:
        assert classify_value(value) == stored
        assert type(classify_value(value)) is type(stored)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "x" * 128, "Temp °C", "温度", "a b", "a.b", "🙂" * 128])
    def test_printable_names_are_kept(self, name: str) -> None:
        assert values(read({name: 1})) == {name: 1.0}

    def test_a_slash_becomes_a_dot(self) -> None:
        assert values(read({"a/b/c": 1, "d": {"e/f": 2}})) == {"a.b.c": 1.0, "d.e.f": 2.0}

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("", ""),
            ("x" * 129, "x" * 128),
            ("a\nb", "a\ufffdb"),
            ("a/\0", "a.\ufffd"),
            ("\x7f", "\ufffd"),
            ("a\u202eb", "a\ufffdb"),
            ("\ud800", "\ufffd"),
        ],
    )
    def test_other_names_are_refused_and_shown_safely(self, name: str, shown: str) -> None:
        for _ in range(2):  # a refusal is not remembered as an acceptance
            decoded = read({name: 1, "ok": 2})
            assert values(decoded) == {"ok": 2.0}
            assert codes(decoded) == [(0, shown, "bad_metric_name")]

    def test_the_length_includes_path_and_parents(self) -> None:
        decoded = read({"b": {"c" * 124: 1, "c" * 125: 2}}, "a")
        assert values(decoded) == {"a.b." + "c" * 124: 1.0}
        assert [one.code for one in decoded.rejections] == ["bad_metric_name"]

    def test_an_ignored_value_needs_no_good_name(self) -> None:
        assert read({"": None, "\n": "unknown"}).rejections == []


class TestPath:
    @pytest.mark.parametrize(
        ("payload", "value"),
        [
            ("21.5", 21.5),
            (" 21.5\n", 21.5),
            ("48", 48.0),
            ("+5", 5.0),
            (".5", 0.5),
            ("007", 7.0),
            ("-1e3", -1000.0),
            ("true", True),
            ("ON", True),
            ("Off\n", False),
            ("hello", "hello"),
            ("hello world\r\n", "hello world"),
            ("it's 5", "it's 5"),
            ("True", "True"),
            ("1_000", "1_000"),
            ("\u0661\u0662", "\u0661\u0662"),
            ("12:30", "12:30"),
            ("[boot] ready", "[boot] ready"),
            ('"21.5"', "21.5"),
            ('"ON"', True),
            ('"open', '"open'),
        ],
    )
    def test_a_scalar_or_text_is_the_metric_named_by_the_path(
        self, payload: str, value: Any
    ) -> None:
        decoded = read(payload, "sensor/kitchen/temperature")
        assert decoded.points == [(NOW, "sensor.kitchen.temperature", value)]
        assert type(decoded.points[0][2]) is type(value)
        assert (decoded.items, decoded.stamped) == (1, 0)

    @pytest.mark.parametrize(
        "payload", ["", "  ", "null", "NaN", "nan", "unavailable", '"unknown"']
    )
    def test_no_value_is_ignored(self, payload: str) -> None:
        decoded = read(payload, "a")
        assert (decoded.points, decoded.rejections) == ([], [])

    @pytest.mark.parametrize(
        "payload",
        [
            "9007199254740993",
            "+9007199254740993",
            "9" * 513,
            "1e999",
            "+1e999",
            "Infinity",
            "-nan",
            "x" * 513,
            "x\0",
            r'"\ud800"',
            "[1, 2]",
            "[]",
            '[{"a": 1}]',
        ],
        ids=shortened,
    )
    def test_a_bad_value_is_refused_under_the_paths_name(self, payload: str) -> None:
        decoded = read(payload, "a/b")
        assert decoded.points == []
        assert codes(decoded) == [(0, "a.b", "bad_value")]

    def test_the_dotted_path_prefixes_the_names_of_an_object(self) -> None:
        payload = {"ts": NOW // 1000, "ENERGY": {"Power": 3}, "values": {"x": 1}}
        decoded = read(payload, "tele/plug/SENSOR")
        assert values(decoded) == {"tele.plug.SENSOR.x": 1.0, "tele.plug.SENSOR.ENERGY.Power": 3.0}
        assert decoded.stamped == 2

    @pytest.mark.parametrize("name", ["ts", "values"])
    def test_a_path_may_be_called_like_a_member_of_the_form(self, name: str) -> None:
        assert read("5", name).points == [(NOW, name, 5.0)]

    @pytest.mark.parametrize(
        "payload", ['{"a": 1', "{'a': 1}", '{"a": NaN}', b"\xff\xd8\xff", b"\xff"]
    )
    def test_a_broken_object_or_bytes_that_are_no_text_are_bad_json(self, payload: Any) -> None:
        assert_only(read(payload, "a"), "bad_json")

    def test_five_levels_are_read(self) -> None:
        assert values(read("1", "a/b/c/d/e")) == {"a.b.c.d.e": 1.0}

    @pytest.mark.parametrize("path", ["a/b/c/d/e/f", "/", "/a", "a/", "a//b"])
    def test_six_levels_or_an_empty_one_are_a_bad_topic(self, path: str) -> None:
        assert_only(read('{"a": 1}', path), "bad_topic")

    @pytest.mark.parametrize("path", ["x" * 129, "a\x01b", "x" * 60_000], ids=shortened)
    def test_a_path_that_is_no_name_is_a_bad_metric_name(self, path: str) -> None:
        for payload in ["1", '{"a": 1}']:
            assert [one.code for one in read(payload, path).rejections] == ["bad_metric_name"]


class TestTimestamps:
    @pytest.mark.parametrize(
        ("ts", "time_us"),
        [
            (1_700_000_000, 1_700_000_000_000_000),
            (1_700_000_000_123, 1_700_000_000_123_000),
            (1_700_000_000_123_456, 1_700_000_000_123_456),
            (1_700_000_000_123_456_789, 1_700_000_000_123_456),
            (1_700_000_000_123_456_999, 1_700_000_000_123_456),
            (1_700_000_000.123456, 1_700_000_000_123_456),
            (1_700_000_000.5, 1_700_000_000_500_000),
            (1_700_000_000_123.456, 1_700_000_000_123_456),
            (1.7e9, 1_700_000_000_000_000),
            (1.7e15, 1_700_000_000_000_000),
            (1.7e18, 1_700_000_000_000_000),
            ("1700000000", 1_700_000_000_000_000),
            (" 1700000000123 ", 1_700_000_000_123_000),
            ("1700000000123456789", 1_700_000_000_123_456),
            ("1700000000.123456", 1_700_000_000_123_456),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
            ("2023-11-14t22:13:20z", 1_700_000_000_000_000),
            ("2023-11-14 22:13:20.5Z", 1_700_000_000_500_000),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000),
            ("2023-11-14T16:43:20.123456-05:30", 1_700_000_000_123_456),
            ("2023-11-14T22:13:20.123456999Z", 1_700_000_000_123_456),
            ("2023-11-14T22:13:20-00:00", 1_700_000_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("0001-01-01T00:00:00+23:59", -62_135_596_800_000_000 - 86_340_000_000),
            ("9999-12-31T23:59:59.999999-23:59", 253_402_300_799_999_999 + 86_340_000_000),
            (0, 0),
            (-1, -SECOND),
            (99_999_999_999, 99_999_999_999_000_000),
            (100_000_000_000, 100_000_000_000_000),
            (99_999_999_999_999, 99_999_999_999_999_000),
            (100_000_000_000_000, 100_000_000_000_000),
            (99_999_999_999_999_999, 99_999_999_999_999_999),
            (100_000_000_000_000_000, 100_000_000_000_000),
        ],
    )
    def test_each_way_to_write_a_time_is_read(self, ts: Any, time_us: int) -> None:
        assert parse_ts(ts) == time_us

    @pytest.mark.parametrize(
        ("ts", "time_us"),
        [
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("2016-12-31T23:59:60.5Z", 1_483_228_800_500_000),
            ("2017-01-01T00:59:60+01:00", 1_483_228_800_000_000),
        ],
    )
    def test_a_leap_second_is_the_first_second_of_the_next_month(
        self, ts: str, time_us: int
    ) -> None:
        assert parse_ts(ts) == time_us

    @pytest.mark.parametrize(
        "ts",
        [
            True,
            False,
            [],
            [NOW],
            {},
            {"s": 1},
            "",
            "yesterday",
            "nan",
            "-nan",
            "inf",
            "1e999",
            "1_700_000_000",
            "\u0661\u0667" + "\u0660" * 8,
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20+0200",
            "2023-11-14T22:13:20+02",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20+02:60",
            "2023-11-14T22:13:20 Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20,5Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:60:00Z",
            "2023-11-14T22:13:61Z",
            "2023-11-14T22:13:60Z",
            "2023-11-14T23:59:60Z",
            "9999-12-31T23:59:60Z",
            "2023-02-29T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "20231114T221320Z",
            "2023-W46-2T22:13:20Z",
            "2023-11-14T22:13:20Z x",
            "9" * 65,
        ],
    )
    def test_anything_else_refuses_the_items_every_value_once(self, ts: Any) -> None:
        decoded = read([{"ts": ts, "values": {"a": 1, "b": [], "c": None}, "d": 2}, {"e": 3}])
        assert decoded.points == [(NOW + 1, "e", 3.0)]
        assert codes(decoded) == [(0, None, "bad_ts")]
        assert decoded.rejections[0].points == 3
        assert decoded.items == 2

    @pytest.mark.parametrize("ts", [math.nan, math.inf, -math.inf, None])
    def test_a_ts_that_is_no_time_is_a_bad_ts(self, ts: object) -> None:
        with pytest.raises(PayloadError) as caught:
            parse_ts(ts)
        assert caught.value.code == "bad_ts"

    @pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 6000], ids=shortened)
    def test_a_ts_out_of_range_is_a_bad_ts(self, number: str) -> None:
        assert codes(read(f'{{"ts": {number}, "a": 1}}')) == [(0, None, "bad_ts")]

    def test_a_refused_item_without_values_still_counts_once(self) -> None:
        (rejection,) = read({"ts": "never"}).rejections
        assert (rejection.code, rejection.points) == ("bad_ts", 1)

    def test_ts_null_is_no_ts(self) -> None:
        decoded = read({"ts": None, "a": 1})
        assert decoded.points == [(NOW, "a", 1.0)]
        assert decoded.stamped == 0

    @pytest.mark.parametrize("ts", [1_700_000_000, "never", True, [], "1e999", 10**30])
    def test_a_device_on_the_servers_clock_has_its_ts_ignored_whatever_it_is(self, ts: Any) -> None:
        decoded = read([{"ts": ts, "a": 1}, {"ts": ts, "values": {"a": 2}}], use_device_clock=False)
        assert decoded.points == [(NOW, "a", 1.0), (NOW + 1, "a", 2.0)]
        assert (decoded.rejections, decoded.stamped) == ([], 0)


class TestWindow:
    @pytest.mark.parametrize("time_us", [OLDEST, NEWEST])
    def test_its_edges_are_accepted(self, time_us: int) -> None:
        assert read({"ts": time_us, "a": 1}).points == [(time_us, "a", 1.0)]

    @pytest.mark.parametrize(
        ("time_us", "code", "limit"),
        [
            (OLDEST - 1, "ts_too_old", "2025-06-08T15:06:40Z"),
            (CLOCK_SET_US, "ts_too_old", "2025-06-08T15:06:40Z"),
            (NEWEST + 1, "ts_in_future", "2025-06-15T15:16:40Z"),
            (10**21, "ts_in_future", "2025-06-15T15:16:40Z"),
        ],
    )
    def test_outside_it_the_item_is_refused_once_and_the_limit_named(
        self, time_us: int, code: str, limit: str
    ) -> None:
        ts = time_us if time_us < 10**17 else time_us * 1000
        decoded = read([{"ts": ts, "a": 1, "b": {"c": 2}}, {"a": 3}])
        assert decoded.points == [(NOW + 1, "a", 3.0)]
        assert codes(decoded) == [(0, None, code)]
        assert decoded.rejections[0].points == 2
        assert limit in decoded.rejections[0].detail

    @pytest.mark.parametrize("ts", [0, -1, 5, 978_307_199, "1970-01-01T00:00:12Z", -(10**30)])
    def test_a_clock_before_2001_is_not_set(self, ts: Any) -> None:
        decoded = read({"ts": ts, "a": 1}, oldest_us=-(10**18))
        assert codes(decoded) == [(0, None, "clock_not_set")]
        assert "2001-01-01" in decoded.rejections[0].detail

    def test_the_first_moment_of_2001_is_a_clock_that_is_set(self) -> None:
        decoded = read({"ts": "2001-01-01T00:00:00Z", "a": 1}, oldest_us=0)
        assert decoded.points == [(CLOCK_SET_US, "a", 1.0)]

    def test_the_time_of_receipt_is_never_judged(self) -> None:
        assert read({"a": 1}, received_us=5).points == [(5, "a", 1.0)]


json_text = st.text(st.characters(exclude_categories=[]), max_size=20)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | json_text
    | st.sampled_from(["ON", "off", "nan", "", "unknown", "2025-06-15T15:06:40Z"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(json_text | st.sampled_from(["ts", "values"]), inner, max_size=4)
    ),
    max_leaves=20,
)
paths = st.just("") | st.text(st.sampled_from("ab/.\x01"), max_size=12)


def assert_sound(decoded: Decoded) -> None:
    """Whatever came in: points can be stored, and rejections can be shown."""
    assert 0 <= decoded.stamped <= len(decoded.points)
    for time_us, metric, value in decoded.points:
        assert type(time_us) is int
        assert NOW <= time_us < NOW + decoded.items or OLDEST <= time_us <= NEWEST
        assert 1 <= len(metric) <= 128
        assert metric.isprintable()
        assert "/" not in metric
        assert type(value) in (float, bool, str)
        if type(value) is float:
            assert math.isfinite(value)
        elif type(value) is str:
            assert 0 < len(value.encode()) <= 512
            assert "\0" not in value
    for rejection in decoded.rejections:
        assert rejection.points >= 1
        assert 0 <= rejection.index < max(1, decoded.items)
        assert len(rejection.detail.encode()) < 300
        if rejection.metric is not None:
            assert len(rejection.metric) <= 128
            assert rejection.metric == "" or rejection.metric.isprintable()


@given(st.binary(max_size=200), paths)
@example(b'{"a":"\\ud800"}', "")
@example(b"\xef\xbb\xbf", "a")
def test_no_bytes_whatever_break_the_decoder(payload: bytes, path: str) -> None:
    assert_sound(read(payload, path))


@given(anything, paths)
def test_no_json_whatever_breaks_the_decoder(message: Any, path: str) -> None:
    assert_sound(read(json.dumps(message).encode(), path))


@given(anything, st.booleans())
def test_spelling_and_parser_make_no_difference(message: Any, escaped: bool) -> None:
    plain = json.dumps(message, ensure_ascii=True).encode()
    try:
        spelled = json.dumps(message, ensure_ascii=escaped, indent=1).encode()
    except UnicodeEncodeError:  # half a surrogate pair can be written escaped only
        spelled = plain
    expected = read(plain)
    assert read(spelled) == expected
    tolerant = read(b"\xef\xbb\xbf" + spelled)  # the mark sends it through the tolerant parser
    assert (tolerant.points, codes(tolerant)) == (expected.points, codes(expected))


@given(st.lists(anything, max_size=6))
def test_a_bad_item_never_costs_its_neighbours(items: list[Any]) -> None:
    good = {"good": 1}
    alternating = [one for item in items for one in (item, good)]
    decoded = read(alternating)
    for index in range(1, len(alternating), 2):
        assert (NOW + index, "good", 1.0) in decoded.points
        assert all(rejection.index != index for rejection in decoded.rejections)
    assert decoded.items == len(alternating)


@given(st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1, max_size=20), anything))
def test_a_bad_value_never_costs_its_neighbours(members: dict[str, Any]) -> None:
    members.pop("values", None)
    members.pop("ts", None)
    assert (NOW, "0good", 1.0) in read(members | {"0good": 1}).points


@given(st.dictionaries(st.text(max_size=140), anything, max_size=8))
def test_a_refused_item_counts_the_points_it_would_have_given(members: dict[str, Any]) -> None:
    members.pop("ts", None)
    fine = read(members)
    lost = len(fine.points) + len(fine.rejections)
    (rejection,) = read({"ts": "never", **members}).rejections
    assert rejection.points == max(1, lost)


@given(st.integers(CLOCK_SET_US, 4_294_967_296 * SECOND))
def test_no_microsecond_is_lost_however_a_time_is_written(time_us: int) -> None:
    moment = EPOCH + timedelta(microseconds=time_us)
    assert parse_ts(time_us) == time_us
    assert parse_ts(time_us * 1000 + 999) == time_us
    assert parse_ts(time_us / 1e6) == time_us
    assert parse_ts(f"{time_us // SECOND}.{time_us % SECOND:06}") == time_us
    assert parse_ts(time_us / 1e3) == time_us
    assert parse_ts(moment.timestamp()) == time_us
    assert parse_ts(moment.isoformat()) == time_us
    assert parse_ts(moment.isoformat(" ").replace("+00:00", "z")) == time_us


@given(
    st.datetimes(
        timezones=st.integers(-1439, 1439).map(
            lambda minutes: timezone(timedelta(minutes=minutes), "offset")
        )
    )
)
def test_any_date_and_offset_is_read(moment: datetime) -> None:
    assert parse_ts(moment.isoformat()) == (moment - EPOCH) // timedelta(microseconds=1)


@given(st.text(max_size=40))
@example("-nan")
@example("-9007199254740993")
def test_text_outside_json_is_a_number_only_if_python_agrees(text: str) -> None:
    found = read_text(text)
    if isinstance(found, str):
        assert found == text
    else:
        assert math.isnan(found) or float(found) == float(text)


@given(st.text(max_size=140))
def test_a_checked_name_stays_as_it_is(name: str) -> None:
    with suppress(PayloadError):
        stored = check_metric_name(name)
        assert check_metric_name(stored) == stored == name.replace("/", ".")


@given(st.integers(), st.integers(), st.integers())
def test_the_window_can_be_judged_for_any_times(time_us: int, oldest: int, newest: int) -> None:
    if max(CLOCK_SET_US, oldest) <= time_us <= newest:
        check_window(time_us, oldest, newest)
    else:
        with pytest.raises(PayloadError, match=r"^ts is "):
            check_window(time_us, oldest, newest)
