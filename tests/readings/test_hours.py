"""Messages of several hours, days and accounts in one flush: each is counted where it belongs."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from door import Door
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Report
from paqett.settings import Settings

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MIDNIGHT = int(time.time()) // 86_400 * DAY
NOON = MIDNIGHT + 12 * HOUR
FEW = 40  # statements

Limited = Callable[..., Door]


@pytest.fixture
def door(settings: Settings) -> Door:
    return Door(settings)


@pytest.fixture
def limited(settings: Settings, tmp_path: Path) -> Limited:
    """A door under a plan `free` whose numbers the test gives; the others have no limits."""

    def make(**limits: int) -> Door:
        lines = ["[own]", 'tier = "own"', "grafana = true", "message_bytes = 262144"]
        lines += ["[free]", 'tier = "free"', "grafana = false", "message_bytes = 32768"]
        lines += [f"{name} = {limit}" for name, limit in limits.items()]
        path = tmp_path / "plans.toml"
        path.write_text("\n".join(lines))
        door = Door(settings)
        door.directory = Directory(load_plans(path))
        return door

    return make


@pytest.fixture
def statements(monkeypatch) -> Iterator[list[str]]:
    """What is executed and copied, as it is sent."""
    sent: list[str] = []
    for name in ("execute", "copy"):
        original = getattr(psycopg.AsyncCursor, name)

        def note(self: Any, text: Any, *more: Any, _original: Any = original, **named: Any) -> Any:
            sent.append(str(text))
            return _original(self, text, *more, **named)

        monkeypatch.setattr(psycopg.AsyncCursor, name, note)
    return sent


def message(
    device: str, values: Any, at: int, topic: str = "telemetry", report: Report | None = None
) -> Incoming:
    payload = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Incoming(device, topic, payload, at, report=report)


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(statement).fetchall()  # type: ignore[call-overload]


def hour(at: int) -> datetime:
    return datetime.fromtimestamp(at // HOUR * 3600, UTC)


# --- hours ---


def test_messages_of_two_hours_one_after_the_other_are_each_counted_in_its_own_hour(
    door, database_url, owner, statements
) -> None:
    early, late = owner.devices
    door.send(message(early, {"t": 0}, NOON - DAY), message(late, {"t": 0}, NOON - DAY))
    statements.clear()
    batch = []
    for number in range(1000):
        batch.append(message(late, {"t": number}, NOON + number))
        batch.append(
            message(early, {"t": number, "u": 1} if number % 2 else b"{", NOON - 1 - number)
        )
    outcome = door.send(*batch)
    assert len(statements) <= FEW
    assert (outcome.stored, outcome.rejected) == (2000, {"bad_json": 500})
    assert ask(
        database_url,
        "SELECT device_id, hour, messages, points FROM usage_hour"
        f" WHERE hour > '{hour(NOON - DAY)}' ORDER BY hour",
    ) == [(early, hour(NOON - HOUR), 1000, 1000), (late, hour(NOON), 1000, 1000)]
    assert ask(database_url, "SELECT device_id, hour, code, points FROM rejection_hour") == [
        (early, hour(NOON - HOUR), "bad_json", 500)
    ]
    assert ask(database_url, "SELECT DISTINCT hour FROM rejection") == [(hour(NOON - HOUR),)]


def test_an_hour_that_only_the_middle_of_a_flush_is_of_is_counted_as_its_own(
    door, database_url, owner
) -> None:
    early, late = owner.devices
    batch = [message(late, {"t": n}, NOON + n) for n in range(3)]
    batch[1:1] = [message(early, {"t": n}, NOON - HOUR * n - 1) for n in range(3)]
    assert door.send(*batch).stored == 6
    assert ask(
        database_url, "SELECT device_id, hour, points FROM usage_hour ORDER BY hour DESC"
    ) == [(late, hour(NOON), 3), *((early, hour(NOON - HOUR * n - 1), 1) for n in range(3))]


def test_a_plan_with_limits_needs_no_more_rounds_for_two_hours(
    limited, free_tenant, statements
) -> None:
    door = limited(messages_per_second=10, message_burst=5000, points_per_day=100_000)
    early, late = free_tenant.devices
    door.send(message(early, {"t": 0}, NOON - DAY), message(late, {"t": 0}, NOON - DAY))
    statements.clear()
    batch = [
        message((early, late)[number % 2], {"t": 1}, NOON + (number if number % 2 else -number - 1))
        for number in range(2000)
    ]
    assert door.send(*batch).stored == 2000
    assert len(statements) <= FEW


def test_across_midnight_each_message_draws_on_its_own_days_quota(
    limited, database_url, free_tenant
) -> None:
    door = limited(points_per_day=10)
    before, after = free_tenant.devices
    batch = []
    for number in range(10):
        batch.append(message(after, {"t": number}, MIDNIGHT + number))
        batch.append(message(before, {"t": number}, MIDNIGHT - 1 - number))
    outcome = door.send(*batch)
    assert (outcome.stored, outcome.rejected) == (20, {})
    assert ask(database_url, "SELECT hour, points FROM usage_hour ORDER BY hour") == [
        (hour(MIDNIGHT - 1), 10),
        (hour(MIDNIGHT), 10),
    ]
    # both days are full: one more of each is thinned, and told when its own day ends
    for device, at, ends in (
        (before, MIDNIGHT - 100, MIDNIGHT),
        (after, MIDNIGHT + 100, MIDNIGHT + DAY),
    ):
        refusals = door.send(message(device, {"t": 1}, at)).refusals
        assert refusals[device, "quota_thinned"].resets_us == ends


@pytest.mark.parametrize("at", [NOON - 1, NOON])
def test_the_edges_of_an_hour_belong_to_one_hour_each(door, database_url, owner, at) -> None:
    door.send(message(owner.devices[0], {"t": 1}, at), message(owner.devices[1], {"t": 1}, NOON))
    found = ask(database_url, "SELECT device_id, hour FROM usage_hour")
    assert sorted(found) == sorted([(owner.devices[0], hour(at)), (owner.devices[1], hour(NOON))])


def test_of_equal_identities_in_two_hours_one_stays_and_both_hours_tell_it(
    door, database_url, owner
) -> None:
    device = owner.devices[0]
    same = {"ts": NOON - 2 * SECOND, "t": 1}
    outcome = door.send(message(device, same, NOON - 1), message(device, same, NOON + 1))
    assert (outcome.stored, outcome.duplicates) == (1, 1)
    assert ask(
        database_url, "SELECT hour, messages, points, duplicates FROM usage_hour ORDER BY hour"
    ) == [(hour(NOON - 1), 1, 1, 0), (hour(NOON), 1, 0, 1)]


# --- devices whose times of receipt run ahead ---


@pytest.mark.parametrize("same_account", [True, False])
def test_a_device_far_ahead_costs_no_other_device_its_message_rate(
    limited, owner, free_tenant, same_account
) -> None:
    door = limited(messages_per_second=1, message_burst=2)
    busy = (free_tenant if same_account else owner).devices[0]
    steady = free_tenant.devices[1]
    first = [message(busy, {"t": 1}, NOON + 30 * MINUTE)]
    first += [message(steady, {"t": n}, NOON + n) for n in range(2)]
    assert door.send(*first).stored == 3
    for second in range(1, 20):
        batch = [
            message(busy, {"t": 1}, NOON + 30 * MINUTE + second * SECOND),
            message(steady, {"t": 1}, NOON + second * SECOND + 1),
        ]
        outcome = door.send(*batch)
        assert (outcome.stored, outcome.rejected) == (2, {}), second


# --- beyond the message rate ---


@pytest.mark.parametrize(
    "values",
    [
        {"t": 1},
        {"on": True, "t": 2, "mode": "auto"},
        [{"ts": NOON - n * SECOND, "t": n, "mode": "x"} for n in range(3)],
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_message_too_many_whose_readings_are_stored_is_a_duplicate(
    limited, database_url, free_tenant, values, restarted
) -> None:
    door = limited(messages_per_second=1, message_burst=1, points_per_day=1000)
    device = free_tenant.devices[0]
    if isinstance(values, dict):
        values = {"ts": NOON, **values}
    first = door.send(message(device, values, NOON))
    assert first.rejected == {}
    if restarted:
        door.directory = limited(
            messages_per_second=1, message_burst=1, points_per_day=1000
        ).directory
    report = Report()
    again = door.send(
        message(device, values, NOON + 1), message(device, values, NOON + 9, report=report)
    )
    assert (again.stored, again.duplicates, again.rejected) == (0, 2 * first.stored, {})
    assert (report.accepted, report.duplicates, report.rejected) == (0, first.stored, [])
    assert ask(database_url, "SELECT points FROM allowance") == [(first.stored,)]
    assert ask(database_url, "SELECT points, duplicates FROM usage_hour") == [
        (first.stored, 2 * first.stored)
    ]


def test_of_a_message_too_many_only_what_is_new_is_refused(
    limited, database_url, free_tenant
) -> None:
    door, device = limited(messages_per_second=1, message_burst=1), free_tenant.devices[0]
    batch = [{"ts": NOON - n * SECOND, "t": n} for n in range(4)]
    report = Report()
    # the first of them even in the same flush
    outcome = door.send(
        message(device, batch[:2], NOON), message(device, batch, NOON + 9, report=report)
    )
    assert (outcome.stored, outcome.duplicates) == (2, 2)
    assert outcome.rejected == {"rate_limited": 2}
    assert (report.accepted, report.duplicates) == (0, 2)
    assert [(r.index, r.metric, r.code) for r in report.rejected] == [
        (2, "t", "rate_limited"),
        (3, "t", "rate_limited"),
    ]
    assert ask(database_url, "SELECT count(*) FROM telemetry_free") == [(2,)]


def test_attributes_draw_on_the_message_rate(limited, database_url, free_tenant) -> None:
    door, device = limited(messages_per_second=1, message_burst=2), free_tenant.devices[0]
    patches = [message(device, {"n": n}, NOON + n, "attributes") for n in range(3)]
    outcome = door.send(*patches, message(device, {"t": 1}, NOON + 3))
    assert (outcome.stored, outcome.rejected) == (0, {"rate_limited": 2})
    kept = ask(database_url, f"SELECT attributes FROM device WHERE id = '{device}'")
    assert kept == [({"n": 1},)]
    assert ask(database_url, "SELECT topic FROM rejection ORDER BY id") == [
        ("attributes",),
        ("telemetry",),
    ]
    later = message(device, {"n": 9}, NOON + SECOND + 4, "attributes")
    assert door.send(later).rejected == {}
    assert door.send(message(device, {"t": 1}, NOON + SECOND + 5)).rejected == {"rate_limited": 1}


def test_without_a_message_rate_attributes_are_as_many_as_are_sent(
    limited, database_url, owner, free_tenant
) -> None:
    door = limited(points_per_day=1000)
    for device in (owner.devices[0], free_tenant.devices[0]):
        patches = [message(device, {"n": n}, NOON + n, "attributes") for n in range(100)]
        assert door.send(*patches).rejected == {}
        kept = ask(database_url, f"SELECT attributes FROM device WHERE id = '{device}'")
        assert kept == [({"n": 99},)]


# --- what makes a device fresh ---


@pytest.mark.parametrize(
    "payload",
    [
        {"t": "warm"},
        {"t": [1]},
        {"ts": NOON, "t": "warm"},
        {"ts": NOON + HOUR, "t": 1},
        [{"t": "a"}, {"t": "b"}],
        {"more": 1},
        b"{",
        {"ts": NOON - HOUR, "t": 5},
    ],
)
def test_a_device_whose_every_value_is_refused_or_late_is_not_fresh(
    limited, database_url, free_tenant, payload
) -> None:
    door, device = limited(metrics_per_device=1), free_tenant.devices[0]
    assert door.send(message(device, {"t": 1}, NOON - DAY)).stored == 1
    door.send(message(device, payload, NOON + 1))
    fresh = (
        "SELECT messages, arrivals, first_fresh_at, last_fresh_at FROM usage_hour"
        f" WHERE hour = '{hour(NOON)}'"
    )
    assert ask(database_url, fresh) == [(1, 0, None, None)]
    door.send(message(device, {"t": 2}, NOON + 2))
    at = datetime.fromtimestamp((NOON + 2) / 1e6, UTC)
    assert ask(database_url, fresh) == [(2, 1, at, at)]


def test_a_message_beyond_the_rate_makes_no_device_fresh(
    limited, database_url, free_tenant
) -> None:
    door, device = limited(messages_per_second=1, message_burst=1), free_tenant.devices[0]
    door.send(*(message(device, {"ts": NOON + n, "t": n}, NOON + n) for n in range(3)))
    at = datetime.fromtimestamp(NOON / 1e6, UTC)
    assert ask(database_url, "SELECT messages, last_fresh_at FROM usage_hour") == [(3, at)]
