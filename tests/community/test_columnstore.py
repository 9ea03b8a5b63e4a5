"""Columnstore of the longer tiers: what it holds is read, erased, moved and dropped like the rest.

Other accounts' readings lie in the same chunks, and each test says that they are untouched.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import psycopg
import pytest

from community_server import run, run_policies, when_free
from paqett import moves
from paqett.db import Connection
from paqett.erasure import sweep
from paqett.plans import load_plans
from paqett.settings import load

PLANS = load_plans(load({}).plans_file)
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
HOURS = range(1, 24 * 12, 6)
_number = count(1)
Readings = set[tuple[int, datetime, str]]


class Holder(msgspec.Struct):
    """An account with a series of numbers, a second one, and one of texts; readings every 6 h."""

    url: str
    account: int
    tier: str
    series: list[int]

    @property
    def tables(self) -> list[str]:
        return [f"telemetry_{self.tier}", f"telemetry_{self.tier}_text"]

    def readings(self, *tiers: str) -> Readings:
        with open_(self.url) as conn:
            rows = [
                row
                for tier in tiers or (self.tier,)
                for form in ("", "_text")
                for row in conn.execute(
                    f"SELECT series_id, time, value::text FROM telemetry_{tier}{form}"
                    " WHERE account_id = %s",
                    (self.account,),
                ).fetchall()
            ]
        assert len(rows) == len({row[:2] for row in rows})  # none is doubled
        return set(rows)


def open_(url: str) -> psycopg.Connection:
    return when_free(lambda: psycopg.connect(url, autocommit=True))


def holder(url: str, tier: str) -> Holder:
    number = next(_number)
    with open_(url) as conn:
        row = conn.execute(
            "INSERT INTO account (email, plan, tier) VALUES (%s, %s, %s) RETURNING id",
            (f"columns-{number}@example.org", tier, tier),
        ).fetchone()
        assert row is not None
        conn.execute(
            "INSERT INTO device (id, account_id, thing_name, verifier) VALUES (%s, %s, 'd', '')",
            (f"column{number}", row[0]),
        )
        series = []
        for metric, kind in (("m", "number"), ("n", "number"), ("t", "text")):
            made = conn.execute(
                "INSERT INTO series (account_id, device_id, metric, kind)"
                " VALUES (%s, %s, %s, %s) RETURNING id",
                (row[0], f"column{number}", metric, kind),
            ).fetchone()
            assert made is not None
            series.append(made[0])
            form = "_text" if kind == "text" else ""
            times = [
                NOW - timedelta(hours=hours) for hours in HOURS if tier != "free" or hours < 160
            ]
            value = f"(%s::int + n)::{'text' if kind == 'text' else 'float8'}"
            conn.execute(
                f"INSERT INTO telemetry_{tier}{form} SELECT time, %s, %s, {value}"
                " FROM unnest(%s::timestamptz[]) WITH ORDINALITY AS t (time, n)",
                (row[0], made[0], made[0], times),
            )
    return Holder(url, row[0], tier, series)


def packed(url: str, tier: str) -> list[bool]:
    """Which chunks of the tier's numbers are columnstore, oldest first, after the policies ran."""
    with open_(url) as conn:
        assert run_policies(conn, "policy_compression", tier) == 2
        rows = conn.execute(
            "SELECT is_compressed, range_end < now() - interval '3 days' FROM"
            " timescaledb_information.chunks WHERE hypertable_name = %s ORDER BY range_start",
            (f"telemetry_{tier}",),
        ).fetchall()
    assert all(is_packed == is_old for is_packed, is_old in rows)
    return [row[0] for row in rows]


@pytest.fixture(params=["paid", "own"])
def pair(request: pytest.FixtureRequest, community_url: str) -> Iterator[tuple[Holder, Holder]]:
    """Two accounts whose readings lie in the same chunks, the older of which are columnstore."""
    mine, theirs = (holder(community_url, request.param) for _ in range(2))
    before = mine.readings(), theirs.readings()
    assert sum(packed(community_url, request.param)) >= 8
    assert (mine.readings(), theirs.readings()) == before
    yield mine, theirs
    assert theirs.readings() == before[1]


def erase(
    mine: Holder, series: list[int], start: datetime | None = None, end: datetime | None = None
) -> None:
    async def work(conn: Connection) -> None:
        reach: sweep.Reach | None = sweep.Reach(start)
        while reach is not None:
            async with conn.transaction():
                reach = await sweep.erase_some(conn, mine.account, series, reach, end)

    run(mine.url, work)


def test_the_free_tier_has_no_columnstore(community_url: str) -> None:
    with open_(community_url) as conn:
        assert run_policies(conn, "policy_compression", "free") == 0


def test_a_metric_is_erased_and_nothing_else(pair: tuple[Holder, Holder]) -> None:
    mine, _ = pair
    gone = mine.series[0]
    kept = {row for row in mine.readings() if row[0] != gone}
    erase(mine, [gone])
    assert mine.readings() == kept


def test_a_range_is_erased_to_the_instant(pair: tuple[Holder, Holder]) -> None:
    mine, _ = pair
    start, end = NOW - timedelta(days=8, hours=3), NOW - timedelta(days=4, hours=9)
    kept = {row for row in mine.readings() if not start <= row[1] < end}
    erase(mine, mine.series, start, end)
    assert mine.readings() == kept


def test_a_late_reading_is_taken_once_and_packed_again(pair: tuple[Holder, Holder]) -> None:
    mine, _ = pair
    before = mine.readings()
    time, series = NOW - timedelta(days=6, minutes=10), mine.series[0]
    there = next(row for row in sorted(before) if row[0] == series)
    with open_(mine.url) as conn:
        for at in (time, time, there[1]):
            conn.execute(
                f"INSERT INTO {mine.tables[0]} VALUES (%s, %s, %s, -1)"
                " ON CONFLICT (series_id, time) DO NOTHING",
                (at, mine.account, series),
            )
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute(
                f"INSERT INTO {mine.tables[0]} VALUES (%s, %s, %s, -1)",
                (there[1], mine.account, series),
            )
    after = before | {(series, time, "-1")}
    assert mine.readings() == after
    packed(mine.url, mine.tier)
    assert mine.readings() == after


async def _move(conn: Connection, account: int, at: datetime) -> None:
    more = True
    while more:
        async with conn.transaction():
            more = await moves.move_slice(conn, account, at)
    async with conn.transaction():
        assert await moves.close_move(conn, account)


def test_a_smaller_plan_takes_what_it_keeps_and_erases_the_rest(
    pair: tuple[Holder, Holder],
) -> None:
    mine, _ = pair
    before = mine.readings()

    async def work(conn: Connection) -> None:
        async with conn.transaction():
            await moves.set_plan(conn, mine.account, PLANS["free"], NOW - moves.GRACE)
        async with conn.transaction():
            await moves.apply_due(conn, mine.account, PLANS, NOW)
        await _move(conn, mine.account, NOW)

    run(mine.url, work)
    oldest = NOW - timedelta(days=7)
    assert mine.readings() == set()
    assert mine.readings("free") == {row for row in before if row[1] >= oldest}


def test_a_larger_plan_takes_readings_into_columnstore_and_the_policy_rests_meanwhile(
    community_url: str,
) -> None:
    neighbour = holder(community_url, "paid")
    packed(community_url, "paid")
    theirs = neighbour.readings()
    mine = holder(community_url, "free")
    before = mine.readings()

    def policies() -> list[bool]:
        with open_(community_url) as conn:
            return [
                row[0]
                for row in conn.execute(
                    "SELECT scheduled FROM timescaledb_information.jobs"
                    " WHERE proc_name = 'policy_retention'"
                    " AND hypertable_name LIKE 'telemetry\\_free%' ORDER BY job_id"
                )
            ]

    async def begin(conn: Connection) -> None:
        async with conn.transaction():
            await moves.set_plan(conn, mine.account, PLANS["paid"], NOW)

    async def carry(conn: Connection) -> None:
        await _move(conn, mine.account, NOW)

    assert policies() == [True, True]
    run(community_url, begin)
    assert policies() == [False, False]
    run(community_url, carry)
    assert policies() == [True, True]
    assert (mine.readings("free"), mine.readings("paid")) == (set(), before)
    packed(community_url, "paid")
    assert (mine.readings("paid"), neighbour.readings()) == (before, theirs)


def test_columnstore_is_dropped_by_the_policy(community_url: str) -> None:
    mine = holder(community_url, "paid")
    with open_(community_url) as conn:
        for days in (95, 92, 89, 80):
            conn.execute(
                "INSERT INTO telemetry_paid VALUES (now() - make_interval(days => %s), %s, %s, 1)",
                (days, mine.account, mine.series[0]),
            )
        run_policies(conn, "policy_compression", "paid")
        run_policies(conn, "policy_retention", "paid")
        ages = conn.execute(
            "SELECT extract(day FROM now() - time)::int FROM telemetry_paid"
            " WHERE account_id = %s AND time < now() - interval '30 days' ORDER BY time",
            (mine.account,),
        ).fetchall()
    assert ages == [(89,), (80,)]
