"""HTTP's NDJSON and CSV: what is wrong with a line costs only that line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paqett.readings.decode import Decoded, decode
from paqett.readings.forms import decode_csv, decode_lines
from paqett.readings.incoming import Receipts

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_750_000_000 * SECOND  # 2025-06-15T15:06:40Z
WINDOW = {"received_us": NOW, "oldest_us": NOW - 7 * DAY, "newest_us": NOW + 600 * SECOND}


def lines(payload: str | bytes, **options: Any) -> Decoded:
    data = payload.encode() if isinstance(payload, str) else payload
    return decode_lines(data, **(WINDOW | options))


def table(payload: str | bytes, **options: Any) -> Decoded:
    data = payload.encode() if isinstance(payload, str) else payload
    return decode_csv(data, **(WINDOW | options))


def codes(decoded: Decoded) -> list[tuple[int, str | None, str]]:
    return [(one.index, one.metric, one.code) for one in decoded.rejections]


class TestLines:
    def test_every_line_is_an_item(self) -> None:
        decoded = lines(
            '{"t": 1}\n{"ts": 1750000000, "values": {"t": 2, "on": "ON"}}\n{"a":{"b":3}}'
        )
        assert decoded.points == [
            (NOW, "t", 1.0),
            (NOW, "t", 2.0),
            (NOW, "on", True),
            (NOW + 2, "a.b", 3.0),
        ]
        assert decoded.indexes == [0, 1, 1, 2]
        assert (decoded.items, decoded.stamped, decoded.rejections) == (3, 2, [])

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("{", "bad_json"),
            ("5", "bad_json"),
            ('"text"', "bad_json"),
            ("null", "bad_json"),
            ('[{"t": 1}]', "bad_json"),
            ('{"t": 1} {"t": 2}', "bad_json"),
            ("hello", "bad_json"),
            ("[" * 5000, "bad_json"),
            ('{"ts": "soon", "t": 1}', "bad_ts"),
            ('{"ts": 5, "t": 1}', "clock_not_set"),
            ('{"ts": 1640995200, "t": 1}', "ts_too_old"),
            ('{"ts": 1760000000, "t": 1}', "ts_in_future"),
        ],
    )
    def test_a_bad_line_costs_only_itself(self, line: str, code: str) -> None:
        decoded = lines(f'{{"t": 1}}\n{line}\n{{"t": 3}}\n')
        assert decoded.points == [(NOW, "t", 1.0), (NOW + 2, "t", 3.0)]
        assert decoded.indexes == [0, 2]
        assert codes(decoded) == [(1, None, code)]

    def test_a_line_that_is_not_utf_8_costs_only_itself(self) -> None:
        decoded = lines(b'{"t": 1}\n{"t": "\xff"}\n{"t": 3}')
        assert [point[2] for point in decoded.points] == [1.0, 3.0]
        assert [code for *_, code in codes(decoded)] == ["bad_json"]

    def test_a_bad_value_costs_only_itself(self) -> None:
        decoded = lines('{"t": 1, "u": [1], "v": 1e999, "w": 4}\n{"u": 2}')
        assert [point[1:] for point in decoded.points] == [("t", 1.0), ("w", 4.0), ("u", 2.0)]
        assert codes(decoded) == [(0, "u", "bad_value"), (0, "v", "bad_value")]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n \t\r\n"])
    def test_blank_lines_and_every_end_of_line_are_passed_over(self, end: str) -> None:
        decoded = lines(f'{end}{{"t": 1}}{end}{{"t": 2}}{end}')
        assert decoded.points == [(NOW, "t", 1.0), (NOW + 1, "t", 2.0)]
        assert (decoded.items, decoded.rejections) == (2, [])

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        decoded = lines(b'\xef\xbb\xbf{"t": 1}\n{"t": 2}')
        assert [point[2] for point in decoded.points] == [1.0, 2.0]

    def test_a_text_may_hold_what_python_takes_for_an_end_of_line(self) -> None:
        text = "a\u2028b\x85c"
        decoded = lines(json.dumps({"t": text}, ensure_ascii=False) + '\n{"u": 1}')
        assert decoded.points == [(NOW, "t", text), (NOW + 1, "u", 1.0)]

    def test_the_servers_clock_drops_every_ts_unread(self) -> None:
        decoded = lines('{"ts": "soon", "t": 1}\n{"ts": 5, "t": 2}', use_device_clock=False)
        assert decoded.points == [(NOW, "t", 1.0), (NOW + 1, "t", 2.0)]
        assert (decoded.stamped, decoded.rejections) == (0, [])

    @pytest.mark.parametrize("payload", ["", "\n", " \r\n\t\n"])
    def test_nothing_is_no_item(self, payload: str) -> None:
        assert lines(payload) == Decoded([], [], 0)

    def test_more_lines_than_an_array_may_have_items_are_read(self) -> None:
        decoded = lines("\n".join(f'{{"t": {i}}}' for i in range(2000)))
        assert decoded.points == [(NOW + i, "t", float(i)) for i in range(2000)]

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["t", "u", "a/b", "ts", "values", "", "mode"]),
                st.one_of(
                    st.integers(NOW - 9 * DAY, NOW + DAY),
                    st.floats(allow_nan=False, allow_infinity=False),
                    st.booleans(),
                    st.none(),
                    st.text(max_size=4),
                    st.dictionaries(st.sampled_from(["t", "ts"]), st.integers(), max_size=2),
                ),
                max_size=4,
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_lines_are_read_as_the_items_of_an_array(self, items: list[dict[str, Any]]) -> None:
        assert lines("\n".join(map(json.dumps, items))) == decode(
            json.dumps(items).encode(), **WINDOW
        )


class TestTable:
    def test_a_line_is_a_time_a_metric_and_a_value(self) -> None:
        decoded = table(
            "time,metric,value\n"
            "2025-06-15T15:06:40Z,temperature,21.5\n"
            "1750000001,door,ON\n"
            "1750000002000,floor/temperature,-3\n"
            "1750000003.5,mode,eco\n"
        )
        assert decoded.points == [
            (NOW, "temperature", 21.5),
            (NOW + SECOND, "door", True),
            (NOW + 2 * SECOND, "floor.temperature", -3.0),
            (NOW + 3_500_000, "mode", "eco"),
        ]
        assert decoded.indexes == [0, 1, 2, 3]
        assert (decoded.items, decoded.stamped, decoded.rejections) == (4, 4, [])

    @pytest.mark.parametrize(
        "heading", ["", "time,metric,value\n", "Time, Metric ,VALUE\r\n", "\n\ntime,metric,value\n"]
    )
    def test_the_heading_is_optional_and_not_counted(self, heading: str) -> None:
        decoded = table(heading + "1750000000,t,1\n1750000000,u,x y z\nbroken")
        assert [point[1:] for point in decoded.points] == [("t", 1.0), ("u", "x y z")]
        assert codes(decoded) == [(2, None, "bad_json")]

    def test_only_the_first_line_is_a_heading(self) -> None:
        decoded = table(",t,1\ntime,metric,value\n")
        assert codes(decoded) == [(1, "metric", "bad_ts")]

    def test_an_empty_time_is_the_time_of_receipt(self) -> None:
        decoded = table(",t,1\n  ,t,2\n1750000000,t,3\n,t,4")
        assert [point[0] for point in decoded.points] == [NOW, NOW + 1, NOW, NOW + 3]
        assert decoded.stamped == 1

    def test_the_servers_clock_drops_every_time_unread(self) -> None:
        decoded = table("soon,t,1\n5,t,2\n,t,3", use_device_clock=False)
        assert [point[0] for point in decoded.points] == [NOW, NOW + 1, NOW + 2]
        assert (decoded.stamped, decoded.rejections) == (0, [])

    @pytest.mark.parametrize(
        ("line", "metric", "code"),
        [
            ("broken", None, "bad_json"),
            (",t", "t", "bad_json"),
            (",t,1,2", "t", "bad_json"),
            ("soon,t,1", "t", "bad_ts"),
            ("2025-06-15T15:06:40,t,1", "t", "bad_ts"),
            ("5,t,1", "t", "clock_not_set"),
            ("1640995200,t,1", "t", "ts_too_old"),
            ("1760000000,t,1", "t", "ts_in_future"),
            (",,1", "", "bad_metric_name"),
            (",a\tb,1", None, "bad_metric_name"),
            (f",{'m' * 200},1", "m" * 128, "bad_metric_name"),
            (",t,9007199254740993", "t", "bad_value"),
            (",t,1e999", "t", "bad_value"),
            (f",t,{'x' * 513}", "t", "bad_value"),
            (",t,a\0b", "t", "bad_value"),
            (",t,1\r2", None, "bad_json"),
            (f',"{"x" * 140_000}",1', None, "bad_json"),
        ],
        ids=lambda value: repr(value)[:24],
    )
    def test_a_bad_line_costs_only_itself(self, line: str, metric: str | None, code: str) -> None:
        decoded = table(f",first,1\n{line}\n,last,2\n")
        assert [point[:2] for point in decoded.points] == [(NOW, "first"), (NOW + 2, "last")]
        assert codes(decoded) == [(1, metric, code)]

    def test_quotes_hold_commas_and_quotes(self) -> None:
        decoded = table('"1750000000","a, b","say ""hello"", twice"\n,"t","1"\n')
        assert [point[1:] for point in decoded.points] == [
            ("a, b", 'say "hello", twice'),
            ("t", 1.0),
        ]

    def test_a_stray_quotation_mark_does_not_swallow_the_lines_after_it(self) -> None:
        decoded = table(',t,"unclosed\n,u,2\n"broken,v\n,w,4')
        assert [point[1] for point in decoded.points] == ["t", "u", "w"]
        assert [(index, code) for index, _, code in codes(decoded)] == [(2, "bad_json")]

    @pytest.mark.parametrize("value", ["", "nan", "NaN", "unknown", "unavailable", " "])
    def test_what_is_no_value_is_passed_over(self, value: str) -> None:
        decoded = table(f",t,{value}\n,u,1")
        assert (decoded.points, decoded.rejections) == ([(NOW + 1, "u", 1.0)], [])

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n , ,\r\n"])
    def test_blank_lines_and_every_end_of_line_are_passed_over(self, end: str) -> None:
        decoded = table(f"{end}time,metric,value{end},t,1{end},t,2{end}")
        assert decoded.points == [(NOW, "t", 1.0), (NOW + 1, "t", 2.0)]
        assert (decoded.items, decoded.rejections) == (2, [])

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        assert len(table(b"\xef\xbb\xbftime,metric,value\n,t,1").points) == 1
        assert len(table(b"\xef\xbb\xbf,t,1").points) == 1

    def test_a_payload_that_is_not_utf_8_is_refused_whole(self) -> None:
        decoded = table(b",t,1\n,u,\xff\n")
        assert (decoded.points, decoded.items) == ([], 0)
        assert codes(decoded) == [(0, None, "bad_json")]

    @pytest.mark.parametrize("payload", ["", "\n\r\n", "time,metric,value\n"])
    def test_nothing_is_no_item(self, payload: str) -> None:
        assert table(payload) == Decoded([], [], 0)

    def test_a_text_may_hold_what_python_takes_for_an_end_of_line(self) -> None:
        decoded = table(",t,a\u2028b\x85c\x0bd\n,u,1")
        assert [point[1:] for point in decoded.points] == [("t", "a\u2028b\x85c\x0bd"), ("u", 1.0)]


@given(
    st.sampled_from(["ndjson", "csv"]),
    st.lists(
        st.sampled_from(
            ['{"t":1}', ",t,1", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", '"']
        ),
        max_size=30,
    ).map("".join),
)
def test_a_message_takes_no_more_times_of_receipt_than_are_kept_free_for_it(
    form: str, payload: str
) -> None:
    data = payload.encode()
    receipts = Receipts()
    first = receipts.stamp("d", data, NOW, form)
    after = receipts.stamp("d", b"{}", NOW)
    read = decode_lines if form == "ndjson" else decode_csv
    decoded = read(data, **(WINDOW | {"received_us": first}))
    assert first + decoded.items <= after
    assert all(first <= time_us < after for time_us, *_ in decoded.points)
