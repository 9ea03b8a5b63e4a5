"""A query looks into the one index, and into no chunk outside its range."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from paqett.readings.source import _WHILE_MOVING as WHILE_MOVING
from paqett.sqlfiles import tier_query

# soon after midnight the day's chunk would be one page, and best read as a whole
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
BUCKETS = {
    "width": timedelta(minutes=5), "origin": datetime(2000, 1, 3, tzinfo=UTC), "starts": None,
    "sums": True, "extremes": True, "ends": True,
}  # fmt: skip
CALENDAR = {**BUCKETS, "width": None, "starts": [NOW - timedelta(hours=1), NOW]}
PAGE = {"after_time": None, "after_series": None, "descending": False, "limit": 1001}


@pytest.fixture
def filled(database_url: str, owner: Any) -> Any:
    """Four days of 200 series, in five chunks of each table."""
    with psycopg.connect(database_url, autocommit=True, options="-c timezone=UTC") as conn:
        for table, value in (("telemetry_own", "1.5"), ("telemetry_own_text", "'x'")):
            conn.execute(
                f"INSERT INTO {table} SELECT t, %s, s, {value} FROM generate_series(%s,"
                " %s::timestamptz, interval '30 minutes') AS t, generate_series(1, 200) AS s",
                (owner.account_id, NOW - timedelta(days=4), NOW),
            )
            conn.execute(f"ANALYZE {table}")
        yield conn


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("read_numbers_asc", {}), ("read_numbers_desc", {}), ("read_number_columns", {}),
        ("read_raw_asc", {}), ("read_raw_desc", {}), ("read_buckets", BUCKETS),
        ("read_bucket_sums", BUCKETS),
        ("read_sorted_buckets", BUCKETS), ("read_text_buckets", BUCKETS),
        ("read_buckets", CALENDAR), ("read_sorted_buckets", CALENDAR),
        ("read_latest_numbers", {}), ("read_latest", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("moving", [False, True])
def test_one_series_costs_no_look_at_the_others(filled, owner, name, more, moving) -> None:
    other = "free" if moving else None
    filled.execute("UPDATE account SET moving_from = %s WHERE id = %s", (other, owner.account_id))
    name = WHILE_MOVING.get(name, name) if moving else name
    values = {
        "account": owner.account_id, "series": [7], "texts": [7], "moving": moving,
        "tier": "own", "moving_from": other, "readable_from": datetime(1970, 1, 1, tzinfo=UTC),
        "from": NOW - timedelta(hours=1), "to": NOW + timedelta(hours=1), **PAGE, **more,
    }  # fmt: skip
    explained = psycopg.sql.SQL("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {}").format(
        tier_query(name, "own", other)
    )
    plan = "\n".join(line for (line,) in filled.execute(explained, values).fetchall())
    assert "Seq Scan on _hyper" not in plan
    assert "_identity" in plan
    chunks = set(re.findall(r"_hyper_\d+_\d+_chunk", plan))
    # the hour and the one ahead may lie in two days; numbers and texts have chunks of their own
    assert 1 <= len(chunks) <= 4
    read = [int(rows) for rows in re.findall(r"Scan.*rows=(\d+)", plan)]
    assert max(read) <= 3
