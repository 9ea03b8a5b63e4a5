"""Rows are copied while the rest of their batch is read: the outcome is the same."""

import json
import random
from typing import Any

import psycopg
import pytest

from door import NOW_US, Door
from paqett.readings import store
from paqett.readings.incoming import Incoming, Report

METRICS = ("t", "h", "on", "mode", "new")


@pytest.fixture
def door(settings, monkeypatch) -> Door:
    monkeypatch.setattr(store, "_STREAMED_ROWS", 4)
    return Door(settings)


def _value(metric: str, dice: random.Random) -> Any:
    if metric == "on":
        return dice.random() < 0.5
    if metric == "mode":
        return dice.choice(("auto", "eco"))
    return dice.randint(0, 1000)


def _messages(
    devices: list[str], dice: random.Random, count: int, metrics: tuple[str, ...]
) -> list[Incoming]:
    found = []
    for number in range(count):
        names = dice.sample(metrics, dice.randint(1, 2))
        body = {name: _value(name, dice) for name in names}
        payload = json.dumps({"ts": NOW_US - dice.randint(0, 60), **body}).encode()
        if dice.random() < 0.05:
            payload = payload[:-1]
        device = dice.choice(devices)
        found.append(Incoming(device, "telemetry", payload, NOW_US + number, "json", Report()))
    return found


def _expected(batches: list[list[Incoming]]) -> dict[tuple[str, str, int], Any]:
    """The first of each identity stays."""
    kept: dict[tuple[str, str, int], Any] = {}
    for message in (message for batch in batches for message in batch):
        try:
            body = json.loads(message.payload)
        except ValueError:
            continue
        ts = body.pop("ts")
        for metric, value in body.items():
            kept.setdefault((message.device_id, metric, ts), value)
    return kept


def _stored(url: str, tier: str) -> dict[tuple[str, str, int], Any]:
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            f"""SELECT device_id, metric, (extract(epoch FROM time) * 1000000)::bigint, value::text
            FROM telemetry_{tier} JOIN series s ON s.id = series_id
            UNION ALL
            SELECT device_id, metric, (extract(epoch FROM time) * 1000000)::bigint, value
            FROM telemetry_{tier}_text JOIN series s ON s.id = series_id"""
        ).fetchall()
    return {row[:3]: row[3] for row in rows}


@pytest.mark.parametrize("seed", range(12))
def test_the_first_of_each_identity_stays_and_every_point_is_accounted_for(
    door, database_url, owner, free_tenant, seed
) -> None:
    dice = random.Random(seed)
    tenant, tier = (owner, "own") if seed % 2 else (free_tenant, "free")
    metrics = METRICS if seed % 3 else ("t", "h", "on")
    batches = [_messages(tenant.devices, dice, 40, metrics) for _ in range(4)]
    outcomes = [door.send(*batch) for batch in batches]
    expected, stored = _expected(batches), _stored(database_url, tier)
    if tier == "own":  # without a message rate that could refuse some
        assert stored == {key: _text(value) for key, value in expected.items()}
    assert sum(outcome.stored for outcome in outcomes) == len(stored)
    reports = [message.report for batch in batches for message in batch]
    assert sum(report.accepted for report in reports if report) == len(stored)
    assert sum(report.duplicates for report in reports if report) == sum(
        outcome.duplicates for outcome in outcomes
    )
    with psycopg.connect(database_url) as conn:
        counted = conn.execute("SELECT sum(points), sum(duplicates) FROM usage_hour").fetchone()
    assert counted == (len(stored), sum(outcome.duplicates for outcome in outcomes))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


def test_many_tiers_in_one_batch_each_get_their_own(door, database_url, owner, free_tenant) -> None:
    dice = random.Random(7)
    both = [*owner.devices, *free_tenant.devices[:1]]
    batch = _messages(both, dice, 60, ("t", "h"))
    door.send(*batch)
    expected = _expected([batch])
    found = _stored(database_url, "own") | _stored(database_url, "free")
    assert found == {key: _text(value) for key, value in expected.items()}


def test_a_flood_without_room_is_looked_up_within_bounds_and_counted_whole(
    door, database_url, free_tenant, monkeypatch
) -> None:
    from paqett.readings import batch

    monkeypatch.setattr(batch, "MOST_LOOKED", 50)
    device = free_tenant.devices[0]
    values = {f"m{number}": number for number in range(10)}
    flood = [
        Incoming(device, "telemetry", json.dumps([values] * 20).encode(), NOW_US + number * 1000)
        for number in range(100)
    ]
    outcome = door.send(*flood)
    assert outcome.stored + sum(outcome.rejected.values()) == 100 * 20 * 10
    assert outcome.rejected["rate_limited"] == 40 * 20 * 10
    with psycopg.connect(database_url) as conn:
        counted = conn.execute("SELECT sum(points) FROM rejection_hour").fetchone()
    assert counted == (sum(outcome.rejected.values()),)
