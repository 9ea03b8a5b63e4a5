"""What a plan allows (product contract, §5), through every door, any process and a restart."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kept import Kept
from paqett import db
from paqett.plans import Plan, load_plans
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome, Report
from paqett.readings.write import write_batch
from paqett.settings import Settings
from support import Tenant, make_tenant

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MIDNIGHT = int(time.time()) // 86_400 * DAY
NOON = MIDNIGHT + 12 * HOUR  # begins an aligned 5 minutes


class Doors:
    """Processes that flush for one database, each with what it remembers; see `restart`."""

    def __init__(self, settings: Settings, plans: dict[str, Plan], number: int = 1) -> None:
        self.database = settings.database
        self.plans = plans
        self.directories = [Directory(plans) for _ in range(number)]
        self._kept = Kept()

    def restart(self, door: int = 0) -> None:
        self.directories[door] = Directory(self.plans)

    def send(self, *messages: Incoming, door: int = 0) -> Outcome:
        async def run() -> Outcome:
            conn = await self._kept.once(f"door {door}", self._connect)
            async with conn.transaction():
                return await write_batch(conn, self.directories[door], messages)

        return self._kept.run(run())

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[db.Connection]:
        async with await db.connect(self.database, "test", autocommit=True) as conn:
            yield conn

    def race(self, *batches: Sequence[Incoming]) -> list[Outcome]:
        """Each batch through its own door, all transactions open at once."""

        async def flush(door: int, batch: Sequence[Incoming]) -> Outcome:
            connecting = db.connect(self.database, "test", autocommit=True)
            async with await connecting as conn, conn.transaction():
                outcome = await write_batch(conn, self.directories[door], batch)
                await asyncio.sleep(0.2)
                return outcome

        async def run() -> list[Outcome]:
            return await asyncio.gather(*(flush(*pair) for pair in enumerate(batches)))

        return asyncio.run(run())


OpenDoors = Callable[..., Doors]


@pytest.fixture
def doors(settings: Settings, tmp_path: Path) -> OpenDoors:
    """Doors under a plan `free` whose numbers the test gives; the others have no limits."""

    def make(number: int = 1, **limits: int) -> Doors:
        lines = ["[own]", 'tier = "own"', "grafana = true", "message_bytes = 262144"]
        lines += ["[free]", 'tier = "free"', "grafana = false"]
        lines += [
            f"{name} = {limit}" for name, limit in ({"message_bytes": 32768} | limits).items()
        ]
        path = tmp_path / "plans.toml"
        path.write_text("\n".join(lines))
        return Doors(settings, load_plans(path), number)

    return make


def message(device: str, values: Any, at: int, report: Report | None = None) -> Incoming:
    payload = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Incoming(device, "telemetry", payload, at, report=report)


def series_of(first: int, count: int, step: int = SECOND, metric: str = "t") -> list[dict]:
    return [{"ts": first + i * step, metric: i} for i in range(count)]


def counted(url: str, what: str = "points") -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(f"SELECT coalesce(sum({what}), 0)::bigint FROM usage_hour").fetchone()
    assert row is not None
    return row[0]


def stored(url: str) -> list[tuple[str, int, Any]]:
    """Metric, time in µs and value of every reading under the plan `free`."""
    with psycopg.connect(url) as conn:
        found = []
        for table in ("telemetry_free", "telemetry_free_text"):
            found += conn.execute(
                "SELECT metric, (extract(epoch FROM time) * 1000000)::bigint, value"
                f" FROM {table} JOIN series ON id = series_id ORDER BY 1, 2"
            ).fetchall()
    return found


# --- message rate ---


def test_a_device_may_send_its_burst_at_once_and_then_keeps_to_its_rate(doors, free_tenant) -> None:
    door, device = doors(messages_per_second=2, message_burst=5), free_tenant.devices[0]
    burst = [message(device, {"t": i}, NOON + i) for i in range(8)]
    outcome = door.send(*burst)
    assert (outcome.stored, outcome.rejected) == (5, {"rate_limited": 3})
    later = [message(device, {"t": i}, NOON + SECOND + 100 + i) for i in range(3)]
    outcome = door.send(*later)
    assert (outcome.stored, outcome.rejected) == (2, {"rate_limited": 1})
    much_later = [message(device, {"t": i}, NOON + HOUR + i) for i in range(8)]
    assert door.send(*much_later).stored == 5


def test_the_rate_survives_a_restart_and_the_turn_of_the_hour(doors, free_tenant) -> None:
    door, device = doors(messages_per_second=1, message_burst=3), free_tenant.devices[0]
    end = NOON + HOUR - SECOND // 2
    assert door.send(*(message(device, {"t": i}, end + i) for i in range(3))).stored == 3
    door.restart()
    next_hour = [message(device, {"t": i}, end + SECOND + i) for i in range(3)]
    assert door.send(*next_hour).rejected == {"rate_limited": 2}


def test_a_device_loses_nothing_to_its_neighbours_rate(doors, free_tenant) -> None:
    door, (loud, quiet) = doors(messages_per_second=1, message_burst=2), free_tenant.devices
    batch = [message(loud, {"t": i}, NOON + i) for i in range(50)]
    outcome = door.send(*batch, message(quiet, {"t": 1}, NOON), message(quiet, {"t": 2}, NOON + 1))
    assert outcome.stored == 4
    assert set(outcome.refusals) == {(loud, "rate_limited")}


def test_older_stamps_come_by_no_more_than_the_rate_allows(doors, free_tenant) -> None:
    door, device = doors(messages_per_second=1, message_burst=60), free_tenant.devices[0]
    accepted = 0
    for minute in range(30):
        at = NOON + minute * MINUTE
        batch = [message(device, {"ts": at - i * 50_000, "t": 1}, at + i) for i in range(500)]
        accepted += door.send(*batch).stored
    assert accepted == 60 + 300 + 29 * 60


def test_an_array_is_one_message(doors, free_tenant) -> None:
    door, device = doors(messages_per_second=1, message_burst=1), free_tenant.devices[0]
    assert door.send(message(device, series_of(NOON - 99, 100, 1), NOON)).stored == 100
    outcome = door.send(message(device, series_of(NOON + 1, 100, 1), NOON + 101))
    assert outcome.rejected == {"rate_limited": 100}


@pytest.mark.parametrize("stamped", [True, False])
def test_what_the_rate_refuses_costs_no_quota(doors, database_url, free_tenant, stamped) -> None:
    door = doors(messages_per_second=1, message_burst=2, points_per_day=10)
    stamp = {"ts": NOON} if stamped else {}
    batch = [message(free_tenant.devices[0], stamp | {f"m{i}": i}, NOON + i) for i in range(9)]
    assert door.send(*batch).stored == 2
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT points FROM allowance").fetchone() == (2,)


@pytest.mark.parametrize("in_arrays", [True, False])
def test_late_readings_draw_neither_on_the_rate_nor_on_the_quota(
    doors, database_url, free_tenant, in_arrays
) -> None:
    door = doors(messages_per_second=1, message_burst=1, points_per_day=100, late_days=1)
    device = free_tenant.devices[0]
    late = series_of(NOON - HOUR, 100)
    batch = [late] if in_arrays else late
    outcome = door.send(*(message(device, values, NOON + i) for i, values in enumerate(batch)))
    assert (outcome.stored, outcome.rejected) == (100, {})
    assert counted(database_url, "late") == 100
    assert door.send(message(device, series_of(NOON, 100, 1), NOON + 200)).stored == 100


def test_of_a_message_too_many_only_the_fresh_readings_are_refused(
    doors, database_url, free_tenant
) -> None:
    door, device = doors(messages_per_second=1, message_burst=1), free_tenant.devices[0]
    door.send(message(device, {"ts": NOON, "t": 0}, NOON))
    late = series_of(NOON - HOUR, 3)
    outcome = door.send(message(device, [*late, {"ts": NOON, "u": 9, "v": 9}], NOON + 1))
    assert (outcome.stored, outcome.rejected) == (3, {"rate_limited": 2})


# --- the late bucket ---


@pytest.fixture
def shipped(settings: Settings) -> Doors:
    """A door under the plans that come with the program."""
    return Doors(settings, load_plans(settings.plans_file))


def flush_backlog(door: Doors, device: str, stamps: list[int], received_us: int) -> Outcome:
    """Everything within a few seconds, in flushes as ingest makes them."""
    total, step = Outcome(), 10_000
    for at in range(0, len(stamps), step):
        part = [
            message(device, {"ts": ts, "t": 1}, received_us + at + i)
            for i, ts in enumerate(stamps[at : at + step])
        ]
        outcome = door.send(*part)
        total.stored += outcome.stored
        total.rejected += outcome.rejected
    return total


@pytest.mark.parametrize("seen", ["never", "by this process", "by another"])
@pytest.mark.parametrize("every_s", [10, 1])
def test_a_days_backlog_of_a_free_device_is_stored_whole(
    shipped, free_tenant, every_s, seen
) -> None:
    door, device = shipped, free_tenant.devices[0]
    stamps = list(range(NOON - DAY, NOON + 1, every_s * SECOND))
    if seen != "never":
        before = [message(device, {"t": 1}, NOON - DAY - SECOND + i) for i in range(60)]
        assert door.send(*before).stored == 60
    if seen == "by another":
        door.restart()
    outcome = flush_backlog(door, device, stamps, NOON + 1)
    assert (outcome.stored, outcome.rejected) == (len(stamps), {})


@pytest.mark.parametrize("every_s", [10, 1])
@pytest.mark.parametrize("order", ["newest first", "beside live readings"])
def test_a_backlog_is_stored_whole_in_whichever_order_it_comes(
    shipped, free_tenant, order, every_s
) -> None:
    door, device = shipped, free_tenant.devices[0]
    stamps = list(range(NOON - HOUR, NOON + 1, every_s * SECOND))
    if order == "newest first":
        stamps.reverse()
    else:
        stamps.insert(0, NOON + 1)
    outcome = flush_backlog(door, device, stamps, NOON + 1)
    assert (outcome.stored, outcome.rejected) == (len(stamps), {})


def test_an_empty_late_bucket_refuses_and_refills_with_time(
    doors, database_url, free_tenant
) -> None:
    door = doors(points_per_day=48, late_days=2)
    device = free_tenant.devices[0]
    outcome = door.send(message(device, series_of(NOON - DAY, 100), NOON))
    assert (outcome.stored, outcome.rejected) == (96, {"quota_exceeded": 4})
    door.restart()
    half_an_hour = message(device, series_of(NOON - DAY + HOUR, 3), NOON + 31 * MINUTE)
    outcome = door.send(half_an_hour)
    assert (outcome.stored, outcome.rejected) == (1, {"quota_exceeded": 2})
    five_hours = message(device, series_of(NOON - DAY + 2 * HOUR, 20), NOON + 331 * MINUTE)
    assert door.send(five_hours).stored == 10
    a_month = message(device, series_of(NOON + 29 * DAY, 200), NOON + 30 * DAY)
    assert door.send(a_month).stored == 96  # never more than the bucket holds
    assert counted(database_url, "late") == counted(database_url) == 203


def test_a_reading_exactly_five_minutes_old_is_fresh(doors, database_url, free_tenant) -> None:
    door, device = doors(points_per_day=100, late_days=1), free_tenant.devices[0]
    edge = NOON - 5 * MINUTE
    door.send(message(device, {"ts": edge, "t": 1}, NOON))
    assert counted(database_url, "late") == 0
    door.send(message(device, {"ts": edge, "u": 1}, NOON + 1))
    assert counted(database_url, "late") == 1
    door.send(message(device, [{"ts": edge + 1, "t": 1}, {"ts": edge + 2, "t": 1}], NOON + 2))
    assert (counted(database_url), counted(database_url, "late")) == (4, 2)


# --- the day's quota ---


@pytest.mark.parametrize("apart", [True, False])
def test_the_quota_counts_utc_days_of_receipt(doors, free_tenant, apart) -> None:
    door, device = doors(points_per_day=10), free_tenant.devices[0]
    before, after = MIDNIGHT - SECOND // 10, MIDNIGHT + SECOND // 10
    batch = [
        message(device, series_of(before - 20, 11, 1), before),
        message(device, series_of(before - 9, 10, 1), after),  # measured the day before
        message(device, {"ts": before - 99, "t": 1}, after + 1),
    ]
    outcomes = [door.send(one) for one in batch] if apart else [door.send(*batch)]
    assert sum(outcome.stored for outcome in outcomes) == 20
    assert sum((o.rejected for o in outcomes), Counter()) == {"quota_thinned": 2}
    if apart:
        assert [outcome.stored for outcome in outcomes] == [10, 10, 0]


def test_what_comes_late_out_of_a_spool_counts_for_its_own_day(
    doors, database_url, free_tenant
) -> None:
    door, device = doors(points_per_day=10), free_tenant.devices[0]
    yesterday, today = MIDNIGHT - HOUR, MIDNIGHT + HOUR
    assert door.send(message(device, series_of(yesterday - 6, 6, 1), yesterday)).stored == 6
    assert door.send(message(device, series_of(today - 8, 8, 1), today)).stored == 8
    outcome = door.send(message(device, series_of(yesterday + 1, 6, 1), yesterday + 10))
    assert (outcome.stored, outcome.rejected) == (4, {"quota_thinned": 2})
    outcome = door.send(message(device, series_of(today + 1, 6, 1), today + 10))
    assert (outcome.stored, outcome.rejected) == (2, {"quota_thinned": 4})


def test_the_quota_is_the_accounts_and_not_the_devices(doors, free_tenant) -> None:
    door, (first, second) = doors(points_per_day=10), free_tenant.devices
    assert door.send(message(first, series_of(NOON - 6, 6, 1), NOON)).stored == 6
    outcome = door.send(message(second, series_of(NOON - 6, 6, 1), NOON))
    assert (outcome.stored, outcome.rejected) == (4, {"quota_thinned": 2})


def test_a_plan_found_in_the_middle_of_a_day_counts_the_day_so_far(
    doors, database_url, free_tenant
) -> None:
    device = free_tenant.devices[0]
    doors().send(message(device, series_of(NOON - 6, 6, 1), NOON))
    outcome = doors(points_per_day=10).send(message(device, series_of(NOON + 1, 6, 1), NOON + 10))
    assert (outcome.stored, outcome.rejected) == (4, {"quota_thinned": 2})


def test_a_plan_without_limits_leaves_no_allowance(doors, database_url, owner, free_tenant) -> None:
    door = doors()
    door.send(message(owner.devices[0], {"t": 1}, NOON), message(free_tenant.devices[0], {}, NOON))
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM allowance").fetchone() == (0,)
        assert conn.execute("SELECT count(tokens) FROM usage_hour").fetchone() == (0,)


def test_the_shipped_plan_of_a_self_hosted_account_has_no_limits(shipped, owner) -> None:
    device = owner.devices[0]
    batch = [message(device, {"ts": NOON - i, "t": i}, NOON + i) for i in range(2000)]
    assert shipped.send(*batch).stored == 2000


def test_a_message_larger_than_the_plan_allows_is_refused_whole(doors, free_tenant, owner) -> None:
    door = doors(message_bytes=100)
    for size, codes in ((100, {}), (101, {"payload_too_large": 1})):
        payload = b'{"t":1}'.ljust(size)
        assert door.send(message(free_tenant.devices[0], payload, NOON + size)).rejected == codes
        assert door.send(message(owner.devices[0], payload, NOON + size)).rejected == {}
    broken = door.send(message(free_tenant.devices[0], b"{" * 101, NOON + 200))
    assert broken.rejected == {"payload_too_large": 1}


# --- duplicates ---


def test_duplicates_are_free(doors, database_url, free_tenant) -> None:
    door = doors(points_per_day=20, late_days=1)
    device = free_tenant.devices[0]
    fresh = message(device, series_of(NOON - 8, 8, 1), NOON)
    late = message(device, series_of(NOON - HOUR, 8, 1), NOON + 20)
    door.send(fresh, late)
    for _ in range(4):
        outcome = door.send(fresh, late)
        assert (outcome.stored, outcome.duplicates, outcome.rejected) == (0, 16, {})
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT points, late_left FROM allowance").fetchone() == (8, 12)
    assert (counted(database_url), counted(database_url, "duplicates")) == (16, 64)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_sending_everything_again_at_the_edge_changes_nothing_and_counts_as_duplicate(
    doors, database_url, free_tenant, late, text
) -> None:
    door, device = doors(points_per_day=10, late_days=1), free_tenant.devices[0]
    first = NOON - (HOUR if late else 10)
    values = [{"ts": first + i, "t": f"number {i}" if text else i, "n": None} for i in range(10)]
    report = Report()
    everything = message(device, values, NOON, report)
    assert door.send(everything).stored == 10
    before = stored(database_url)
    outcome = door.send(everything)
    assert (outcome.stored, outcome.duplicates, outcome.rejected) == (0, 10, {})
    assert (report.accepted, report.duplicates, report.rejected) == (0, 10, [])
    assert stored(database_url) == before


@pytest.mark.parametrize("late", [False, True])
def test_duplicates_take_no_room_from_what_is_new(doors, database_url, free_tenant, late) -> None:
    door, device = doors(points_per_day=10, late_days=1), free_tenant.devices[0]
    first = NOON - (HOUR if late else 20)
    door.send(message(device, series_of(first, 6, 1), NOON))
    outcome = door.send(message(device, series_of(first, 10, 1), NOON + 1))
    assert (outcome.stored, outcome.duplicates, outcome.rejected) == (4, 6, {})
    assert counted(database_url) == 10


# --- past the quota ---


def test_past_the_quota_one_reading_a_series_is_kept_in_five_minutes_up_to_half_as_much_again(
    doors, database_url, free_tenant
) -> None:
    door, device = doors(points_per_day=10), free_tenant.devices[0]
    door.send(message(device, series_of(NOON, 10, 1, "a"), NOON + 10))
    step = 5 * MINUTE

    def send(at: int, **values: Any) -> tuple[int, dict[str, int]]:
        outcome = door.send(message(device, values, NOON + at))
        return outcome.stored, dict(outcome.rejected)

    assert send(100, a=1) == (0, {"quota_thinned": 1})  # its first stands in the database
    assert send(200, b=1) == (1, {})
    assert send(300, b=2, mode="x") == (1, {"quota_thinned": 1})
    door.restart()
    assert send(400, mode="y") == (0, {"quota_thinned": 1})
    assert send(step - 1, a=1) == (0, {"quota_thinned": 1})
    assert send(step, a=1) == (1, {})
    assert send(step + 1, a=2, b=3, mode="z") == (2, {"quota_thinned": 1})
    assert send(2 * step, a=1, b=1) == (0, {"quota_exceeded": 2})
    assert counted(database_url) == len(stored(database_url)) == 15


def test_within_one_flush_the_first_of_a_slot_is_kept_and_the_others_thinned(
    doors, database_url, free_tenant
) -> None:
    door, device = doors(points_per_day=4), free_tenant.devices[0]
    step = 5 * MINUTE
    batch = [
        message(device, {"t": 1, "u": 1, "on": True, "mode": "a"}, NOON),
        message(device, {"t": 2, "mode": "b"}, NOON + 5),
        message(device, {"ts": NOON + step + 7, "t": 3}, NOON + step),
        message(device, {"ts": NOON + step + 2, "t": 4}, NOON + step + 9),
        message(device, {"mode": "c"}, NOON + step + 10),
        message(device, {"mode": "d"}, NOON + step + 11),
        message(device, {"on": True}, NOON + step + 12),
    ]
    outcome = door.send(*batch)
    assert outcome.stored == 6
    assert outcome.rejected == {"quota_thinned": 4, "quota_exceeded": 1}
    past = [(metric, value) for metric, at, value in stored(database_url) if at >= NOON + step]
    assert past == [("t", 3.0), ("mode", "c")]


def test_a_message_across_the_quota_is_stored_up_to_it(doors, database_url, free_tenant) -> None:
    door, device = doors(points_per_day=10), free_tenant.devices[0]
    values = {f"m{i}": i for i in range(20)}
    outcome = door.send(message(device, values, NOON))
    # ten within the quota, and of ten series more the first reading each, up to 150 %
    assert (outcome.stored, outcome.rejected) == (15, {"quota_exceeded": 5})


def test_refused_readings_are_told_with_the_limit_they_passed(doors, free_tenant) -> None:
    door = doors(points_per_day=4, messages_per_second=3, message_burst=3)
    device = free_tenant.devices[0]
    batch = [message(device, {"t": i, "u": i}, NOON + i) for i in range(4)]
    refusals = door.send(*batch).refusals
    thinned, limited = refusals[device, "quota_thinned"], refusals[device, "rate_limited"]
    assert (thinned.points, thinned.limit, thinned.resets_us) == (2, 4, MIDNIGHT + DAY)
    assert (limited.points, limited.limit, limited.resets_us) == (2, 3, None)
    assert (limited.first_us, limited.last_us) == (NOON + 3, NOON + 3)


# --- processes ---


@pytest.mark.parametrize("known", [True, False])
def test_two_transactions_at_once_never_admit_more_than_the_quota(
    doors, database_url, free_tenant, known
) -> None:
    door = doors(2, points_per_day=50, late_days=1)
    first, second = free_tenant.devices
    used = 0
    if known:
        used = sum(
            door.send(message(d, {"t": 1}, NOON), door=n).stored
            for n, d in enumerate((first, second))
        )
    for at in (NOON + SECOND, NOON + 2 * SECOND):
        outcomes = door.race(
            [message(first, series_of(at, 40, 1), at + 100)],
            [message(second, series_of(at, 40, 1), at + 100)],
        )
        used += sum(outcome.stored for outcome in outcomes)
    assert used == 50
    assert counted(database_url) == len(stored(database_url)) == 50
    late = [[message(d, series_of(NOON - HOUR, 40), NOON + 3 * SECOND)] for d in (first, second)]
    assert sum(outcome.stored for outcome in door.race(*late)) == 50


def test_two_spools_of_a_past_day_never_admit_more_than_its_quota(
    doors, database_url, free_tenant
) -> None:
    door = doors(2, points_per_day=50)
    first, second = free_tenant.devices
    door.send(message(first, {"t": 1}, MIDNIGHT + HOUR))
    at = MIDNIGHT - HOUR
    outcomes = door.race(
        [message(first, series_of(at, 40, 1), at + 100)],
        [message(second, series_of(at, 40, 1), at + 100)],
    )
    assert sum(outcome.stored for outcome in outcomes) == 50


def test_a_device_that_changes_doors_has_one_rate(doors, free_tenant) -> None:
    door, device = doors(2, messages_per_second=1, message_burst=4), free_tenant.devices[0]
    outcomes = [
        door.send(*(message(device, {"t": 1}, NOON + 10 * n + i) for i in range(2)), door=n % 2)
        for n in range(4)
    ]
    assert [outcome.stored for outcome in outcomes] == [2, 2, 0, 0]


def test_a_door_that_charged_another_device_last_does_not_trust_what_it_remembers(
    doors, free_tenant
) -> None:
    door, (first, second) = doors(2, messages_per_second=1, message_burst=4), free_tenant.devices
    door.send(message(first, {"t": 1}, NOON), door=0)
    assert (
        door.send(*(message(first, {"t": 1}, NOON + 1 + i) for i in range(5)), door=1).stored == 3
    )
    door.send(message(second, {"t": 1}, NOON + 10), door=0)
    outcome = door.send(*(message(first, {"t": 1}, NOON + 20 + i) for i in range(3)), door=0)
    assert outcome.rejected == {"rate_limited": 3}


def test_a_flush_rolled_back_has_used_nothing(doors, settings, database_url, free_tenant) -> None:
    door = doors(messages_per_second=1, message_burst=4, points_per_day=10)
    device = free_tenant.devices[0]
    batch = [message(device, {"t": i}, NOON + i) for i in range(4)]
    door.send(message(free_tenant.devices[1], {"t": 1}, NOON))

    async def lose() -> None:
        connecting = db.connect(settings.database, "test", autocommit=True)
        async with await connecting as conn, conn.transaction(force_rollback=True):
            await write_batch(conn, door.directories[0], batch)
        door.directories[0].forget({device})

    asyncio.run(lose())
    assert door.send(*batch).stored == 4
    assert counted(database_url) == 5


# --- everything at once ---

QUOTA = 24
times_ago = st.sampled_from([0, 0, 1, 2, SECOND, 4 * MINUTE, 6 * MINUTE, HOUR, HOUR + 1, 8 * DAY])
good_values = st.dictionaries(
    st.sampled_from(["a", "b", "on", "mode"]), st.integers(0, 3), min_size=1, max_size=4
)


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    """Seconds ago (None: without ts) and values; `on` and `mode` are of other kinds, mostly."""
    values: dict[str, Any] = draw(good_values)
    if "on" in values and draw(st.integers(0, 4)):
        values["on"] = values["on"] > 1
    if "mode" in values and draw(st.integers(0, 4)):
        values["mode"] = f"mode {values['mode']}"
    if draw(st.integers(0, 9)) == 0:
        values["bad"] = draw(st.sampled_from([[], 2**60, "x" * 600]))
    return {"ago": draw(st.none() | times_ago), "values": values}


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),  # the door
        st.booleans(),  # restarted before
        st.sampled_from([SECOND, MINUTE, 10 * MINUTE, 2 * HOUR]),  # since the last step
        st.lists(
            st.tuples(st.integers(0, 1), st.lists(items(), min_size=1, max_size=4)), max_size=8
        ),
        st.booleans(),  # sent again
    ),
    min_size=1,
    max_size=6,
)


class Account:
    """A fresh account with what it sent and was told, and what must hold of it at any moment."""

    def __init__(self, url: str, door: Doors, tenant: Tenant) -> None:
        self.url, self.door, self.tenant = url, door, tenant
        self.told = Counter[str]()
        self.rejected = Counter[str]()

    def send(self, door: int, batch: list[Incoming]) -> None:
        outcome = self.door.send(*batch, door=door)
        reports = [one.report for one in batch if one.report is not None]
        assert sum(report.accepted for report in reports) == outcome.stored
        assert sum(report.duplicates for report in reports) == outcome.duplicates
        assert sum(r.points for report in reports for r in report.rejected) == sum(
            outcome.rejected.values()
        )
        self.told.update(stored=outcome.stored, duplicates=outcome.duplicates)
        self.rejected += outcome.rejected

    def check(self, sent: int) -> None:
        """Usage is what is stored, every point sent is told of, and no limit is passed."""
        of = {"account": self.tenant.account_id}
        with psycopg.connect(self.url) as conn:
            rows = conn.execute(
                "SELECT device_id, count(*) FROM (SELECT series_id FROM telemetry_free"
                " UNION ALL SELECT series_id FROM telemetry_free_text) r"
                " JOIN series ON id = series_id WHERE account_id = %(account)s GROUP BY 1"
                " ORDER BY 1",
                of,
            ).fetchall()
            usage = conn.execute(
                "SELECT device_id, sum(points)::bigint FROM usage_hour"
                " WHERE account_id = %(account)s GROUP BY 1 HAVING sum(points) > 0 ORDER BY 1",
                of,
            ).fetchall()
            days = conn.execute(
                "SELECT date_trunc('day', hour, 'UTC')::date, sum(points - late)::bigint"
                " FROM usage_hour WHERE account_id = %(account)s GROUP BY 1",
                of,
            ).fetchall()
            allowance = conn.execute(
                "SELECT day, points, late_left FROM allowance WHERE account_id = %(account)s", of
            ).fetchone()
            ledger = conn.execute(
                "SELECT code, sum(points)::bigint FROM rejection_hour"
                " WHERE account_id = %(account)s GROUP BY 1",
                of,
            ).fetchall()
        assert usage == rows
        assert sum(count for _, count in rows) == self.told["stored"]
        assert dict(ledger) == self.rejected
        assert self.told.total() + self.rejected.total() == sent
        assert all(points <= QUOTA * 1.5 for _, points in days)
        if allowance is not None:
            assert dict(days).get(allowance[0], 0) == allowance[1]
            assert 0 <= allowance[2] <= QUOTA


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_usage_equals_what_is_stored_whatever_comes_through_whichever_door(
    doors, database_url, played
) -> None:
    door = doors(2, points_per_day=QUOTA, late_days=1, messages_per_second=1, message_burst=6)
    name = f"account-{time.monotonic_ns()}"
    account = Account(database_url, door, make_tenant(database_url, name, plan="free"))
    now, sent = MIDNIGHT + 21 * HOUR, 0
    for number, restarted, after, messages, again in played:
        now += after
        if restarted:
            door.restart(number)
        batch = []
        for place, (device, sent_items) in enumerate(messages):
            at = now + place * 500
            payload = [
                values | ({} if ago is None else {"ts": at - ago})
                for ago, values in ((item["ago"], item["values"]) for item in sent_items)
            ]
            batch.append(message(account.tenant.devices[device], payload, at, Report()))
        for _ in range(1 + again):
            sent += sum(len(item["values"]) for _, found in messages for item in found)
            account.send(number, batch)
        account.check(sent)
