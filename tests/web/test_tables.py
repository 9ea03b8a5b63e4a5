"""Whatever stands in a row, CSV and NDJSON give it back."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from paqett.web import tables

COLUMNS = ("time", "device", "metric", "value")
START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.one_of(st.sampled_from(["t", "a.b", "ü"]), st.text(min_size=1, max_size=8))
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.integers(0, 2**40)
)
VALUES = st.one_of(NUMBERS, st.none(), st.text(max_size=8))


def rows_of(value: Any) -> Any:
    times = st.integers(0, 10**12).map(lambda us: START + timedelta(microseconds=us))
    return st.lists(st.tuples(times, st.just("d_1-A"), NAMES, value), max_size=20)


@given(rows=st.one_of(rows_of(NUMBERS), rows_of(VALUES)))
@example(rows=[(START, "d", "],[", 1.0), (START, "d", '"', 2.0)])
@example(rows=[(START, "d", "a", 1e300), (START, "d", "b", True)])
@example(rows=[(START, "d", "a", "],["), (START, "d", "b", None)])
def test_rows_come_back_as_they_were(rows: list[tuple[Any, ...]]) -> None:
    lines = tables.encode("application/x-ndjson", COLUMNS, rows).decode().split("\n")
    assert lines.pop() == ""
    seen = [json.loads(line) for line in lines]
    assert [tuple(item.values())[1:] for item in seen] == [row[1:] for row in rows]
    assert [datetime.fromisoformat(item["time"]) for item in seen] == [row[0] for row in rows]
    text = tables.encode("text/csv", COLUMNS, rows).decode()
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert read[0] == list(COLUMNS)
    assert [row[0] for row in read[1:]] == [item["time"] for item in seen]
    for row, item in zip(read[1:], seen, strict=True):
        value = item["value"]
        shown = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        assert row[1:3] == [item["device"], item["metric"]]
        if isinstance(value, float):
            assert float(row[3]) == value
        else:
            assert row[3] == shown
