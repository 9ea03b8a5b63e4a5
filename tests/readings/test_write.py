"""Batches of messages become rows: each reading once, its neighbours untouched by a bad one."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from door import NOW, NOW_US, Door, message
from paqett import db, moves
from paqett.plans import load_plans
from paqett.settings import Settings


@pytest.fixture
def door(settings: Settings) -> Door:
    return Door(settings)


def rows(url: str, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT device_id, metric, time, value"
            f" FROM {table} t JOIN series s ON s.id = series_id ORDER BY 1, 2, 3"
        ).fetchall()


def test_numbers_booleans_and_texts_land_in_the_accounts_tier(door, database_url, owner) -> None:
    device = owner.devices[0]
    outcome = door.send(message(device, {"t": 21.5, "on": True, "mode": "auto"}))
    assert outcome.stored == 3
    assert [r[1::2] for r in rows(database_url, "telemetry_own")] == [("on", 1.0), ("t", 21.5)]
    assert [r[1::2] for r in rows(database_url, "telemetry_own_text")] == [("mode", "auto")]


def test_a_reading_sent_again_is_counted_and_its_neighbours_stored(
    door, database_url, owner
) -> None:
    device = owner.devices[0]
    first = [{"ts": NOW_US + i, "t": i} for i in range(10)]
    assert door.send(message(device, first)).stored == 10
    again = [{"ts": NOW_US + i, "t": 100 + i} for i in range(5, 15)]
    outcome = door.send(message(device, again))
    assert (outcome.stored, outcome.duplicates) == (5, 5)
    values = [r[3] for r in rows(database_url, "telemetry_own")]
    assert values == [*range(10), *range(110, 115)]


def test_the_first_of_two_equal_identities_in_one_batch_stays(door, database_url, owner) -> None:
    device = owner.devices[0]
    outcome = door.send(
        message(device, {"ts": NOW_US, "t": 2}), message(device, {"ts": NOW_US, "t": 1})
    )
    assert (outcome.stored, outcome.duplicates) == (1, 1)
    assert [r[3] for r in rows(database_url, "telemetry_own")] == [2.0]


def test_usage_equals_what_is_stored(door, database_url, owner) -> None:
    device = owner.devices[0]
    door.send(message(device, {"ts": NOW_US, "t": 2}))
    door.send(message(device, [{"ts": NOW_US, "t": 2}, {"ts": NOW_US + 1, "t": 2}]))
    with psycopg.connect(database_url) as conn:
        used = conn.execute("SELECT messages, points, duplicates FROM usage_hour").fetchone()
    assert used == (2, 2, 1)


def test_one_poison_message_costs_only_itself(door, database_url, owner) -> None:
    device = owner.devices[0]
    poison = [b"{", b"\xff\xfe", b"[" * 5000, b'{"t": 1e999}', b'{"t": "\\u0000"}', b"null", b""]
    batch = [message(device, {"ts": NOW_US + i, "good": i}) for i in range(200)]
    for number, payload in enumerate(poison):
        batch.insert(number * 20, message(device, payload))
    outcome = door.send(*batch)
    assert outcome.stored == 200
    assert sum(outcome.rejected.values()) >= len(poison) - 1
    with psycopg.connect(database_url) as conn:
        counted = conn.execute("SELECT sum(points) FROM rejection_hour").fetchone()
    assert counted == (sum(outcome.rejected.values()),)


def test_a_metric_keeps_the_kind_of_its_first_value(door, owner) -> None:
    device = owner.devices[0]
    door.send(message(device, {"t": 1}))
    outcome = door.send(message(device, {"t": "warm", "u": 2}))
    assert outcome.stored == 1
    assert outcome.rejected == {"type_conflict": 1}


def test_the_plan_limits_the_metrics_of_a_device(door, free_tenant) -> None:
    outcome = door.send(message(free_tenant.devices[0], {f"m{i}": i for i in range(25)}))
    assert outcome.stored == 20
    assert outcome.rejected == {"metric_limit": 5}


def test_readings_older_than_the_tiers_retention_are_refused(door, free_tenant, owner) -> None:
    old = NOW_US - 8 * 86_400_000_000
    assert door.send(message(free_tenant.devices[0], {"ts": old, "t": 1})).rejected == {
        "ts_too_old": 1
    }
    assert door.send(message(owner.devices[0], {"ts": old, "t": 1})).stored == 1


def test_a_deleted_device_is_not_written_for_even_by_a_directory_that_knew_it(
    door, database_url, owner
) -> None:
    device = owner.devices[0]
    door.send(message(device, {"t": 1}))
    with psycopg.connect(database_url) as conn:
        conn.execute("DELETE FROM device WHERE id = %s", (device,))
    outcome = door.send(message(device, {"t": 2}, at=NOW_US + 5))
    assert (outcome.stored, outcome.unknown) == (0, 1)


def test_an_upgrade_moves_the_history_and_loses_or_doubles_nothing(
    door, database_url, free_tenant, settings
) -> None:
    device = free_tenant.devices[0]
    history = [{"ts": NOW_US - i * 86_400_000_000, "t": i} for i in range(6)]
    door.send(message(device, history))
    plans = load_plans(settings.plans_file)

    async def run() -> None:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            async with conn.transaction():
                due = await moves.set_plan(conn, free_tenant.account_id, plans["paid"], NOW)
            assert due is None

    asyncio.run(run())
    # sent again while the move is open: the other tier holds five of them
    again = door.send(message(device, [*history[1:], {"ts": NOW_US + 1, "t": 9}]))
    assert (again.stored, again.duplicates) == (1, 5)

    async def move() -> None:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            more = True
            while more:
                async with conn.transaction():
                    more = await moves.move_slice(conn, free_tenant.account_id, NOW)
            async with conn.transaction():
                assert await moves.close_move(conn, free_tenant.account_id)

    asyncio.run(move())
    assert rows(database_url, "telemetry_free") == []
    assert len(rows(database_url, "telemetry_paid")) == 7
    late = door.send(message(device, history))
    assert (late.stored, late.duplicates) == (0, 6)


def test_a_downgrade_waits_for_its_grace(door, database_url, settings, attacker) -> None:
    plans = load_plans(settings.plans_file)

    async def run() -> datetime | None:
        async with await db.connect(settings.database, "test") as conn:
            return await moves.set_plan(conn, attacker.account_id, plans["free"], NOW)

    assert asyncio.run(run()) == NOW + timedelta(days=14)
    door.send(message(attacker.devices[0], {"t": 1}))
    assert len(rows(database_url, "telemetry_own")) == 1
