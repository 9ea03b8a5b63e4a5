"""The kill test's own judgement: it must see a reading that is missing, and one stored twice."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import psycopg
import pytest

from paqett import db
from paqett.errors import ConfigurationError
from paqett.local import promises, state, torture
from paqett.local.promises import Balance
from paqett.local.torture import Options
from paqett.local.torture_report import Report, Round, table
from paqett.plans import load_plans
from paqett.settings import Settings
from support import Tenant, with_url

NOW = datetime.now(UTC)
NOW_US = int(NOW.timestamp() * 1e6)


def counted(settings: Settings, file: Path, accounts: list[int]) -> Balance:
    async def work() -> Balance:
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            await promises.stage(conn, file)
            return await promises.count(conn, "own", accounts, NOW - timedelta(minutes=1))

    return asyncio.run(work())


def store(url: str, tenant: Tenant, readings: int) -> str:
    """`readings` readings of three points each of the tenant's first device, µs apart."""
    device = tenant.devices[0]
    with psycopg.connect(url) as conn:
        conn.execute(
            "WITH made AS (INSERT INTO series (account_id, device_id, metric, kind)"
            " SELECT %s, %s, m, 'number' FROM unnest(array['a', 'b', 'c']) AS m RETURNING id)"
            " INSERT INTO telemetry_own SELECT"
            " timestamptz 'epoch' + (%s + n) * interval '1 microsecond', %s, id, n"
            " FROM made, generate_series(0, %s - 1) AS n",
            (tenant.account_id, device, NOW_US, tenant.account_id, readings),
        )
    return device


def write_ledger(file: Path, device: str, readings: int, points: int = 3) -> None:
    file.write_text("".join(f'["{device}", {NOW_US + n}, {points}]\n' for n in range(readings)))


@pytest.mark.parametrize(
    ("promised", "points", "balance"),
    [
        (1000, 3, Balance(3000, 3000, 0, 0)),
        (900, 3, Balance(2700, 3000, 0, 0)),  # stored, its acknowledgement lost on the way
        (1002, 3, Balance(3006, 3000, 6, 0)),
        (1000, 2, Balance(2000, 3000, 0, 1000)),
        (1000, 4, Balance(4000, 3000, 1000, 0)),
    ],
)
def test_what_is_missing_or_doubled_is_counted_reading_by_reading(
    settings: Settings, database_url: str, owner: Tenant, attacker: Tenant, tmp_path: Path,
    promised: int, points: int, balance: Balance,
) -> None:  # fmt: skip
    store(database_url, attacker, 7)
    device = store(database_url, owner, 1000)
    write_ledger(tmp_path / "ledger", device, promised, points)
    assert counted(settings, tmp_path / "ledger", [owner.account_id]) == balance


@pytest.mark.prove
def test_a_million_readings_are_counted_in_bounded_memory(
    settings: Settings, database_url: str, owner: Tenant, tmp_path: Path
) -> None:
    import resource

    device = store(database_url, owner, 1_000_000)
    write_ledger(tmp_path / "ledger", device, 1_000_001)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    balance = counted(settings, tmp_path / "ledger", [owner.account_id])
    assert balance == Balance(3_000_003, 3_000_000, 3, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"


ONE = Round(1, "ingest", NOW, 0.5)


@pytest.mark.parametrize(
    ("rounds", "balance", "forgiving", "passed"),
    [
        ([ONE], Balance(9, 9, 0, 0), False, True),
        ([ONE], Balance(9, 12, 0, 0), False, True),
        ([ONE], Balance(9, 8, 1, 0), False, False),
        ([ONE], Balance(9, 8, 1, 0), True, False),  # it was not the broker that was killed
        ([ONE], Balance(9, 10, 0, 1), True, False),
        ([ONE], Balance(0, 0, 0, 0), False, False),  # nothing was promised, nothing is proved
        ([Round(1, "api", NOW, None)], Balance(9, 9, 0, 0), False, False),
        ([Round(1, "broker", NOW, 1.0)], Balance(9, 8, 1, 0), False, False),
        ([Round(1, "broker", NOW, 1.0)], Balance(9, 8, 1, 0), True, True),
        ([Round(1, "broker", NOW, 1.0)], Balance(9, 8, 0, 1), True, False),
    ],
)
def test_it_passes_only_when_nothing_is_missing_or_doubled(
    rounds: list[Round], balance: Balance, forgiving: bool, passed: bool
) -> None:
    assert torture._passed(rounds, balance, Options(broker_may_lose=forgiving)) is passed


def test_the_same_seed_kills_in_the_same_order_and_leaves_no_target_out() -> None:
    from itertools import islice

    orders = [list(islice(torture._order(torture.TARGETS, Random(7)), 12)) for _ in range(2)]
    assert orders[0] == orders[1]
    assert set(orders[0][:6]) == set(orders[0][6:]) == set(torture.TARGETS)


def tried(settings: Settings, options: Options) -> None:
    plan = load_plans(settings.plans_file)["own"]
    asyncio.run(torture.run(settings, plan, options, asyncio.Event(), lambda _: None))


def test_it_refuses_where_nothing_runs(tmp_path: Path) -> None:
    settings = with_url("", PAQETT_PAQETT__DATA_DIR=str(tmp_path))
    with pytest.raises(ConfigurationError, match="nothing runs"):
        tried(settings, Options())


@pytest.mark.parametrize(
    ("targets", "says"),
    [(("kernel",), "--targets"), ((), "--targets"), (("database",), "database")],
)
def test_it_refuses_what_it_cannot_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: tuple[str, ...], says: str
) -> None:
    state.save(tmp_path, state.State(pids={"supervisor": os.getpid()}))
    monkeypatch.setattr("paqett.local.torture_site._is_paqett", lambda _: True)
    settings = with_url("", PAQETT_PAQETT__DATA_DIR=str(tmp_path))
    with pytest.raises(ConfigurationError, match=says):
        tried(settings, Options(targets=targets))


def test_the_report_says_beside_each_number_what_it_counts() -> None:
    report = Report(1, [ONE, Round(2, "api", NOW, None)], 10, 9, 27, 30, 0, 0, passed=False)
    text = table(report)
    assert "10 messages" in text
    assert "27 points" in text
    assert "not back" in text
    assert "FAILED (seed 1)" in text
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
