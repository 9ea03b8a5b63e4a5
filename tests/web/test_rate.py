"""A plan's requests a minute: exact for one process and for several, cheap, and told in headers."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from listening import listening
from paqett import db
from paqett.errors import TooManyRequests, Unauthorized
from paqett.settings import Settings
from paqett.web.rate import Rates
from support import Tenant, make_tenant

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
PLANS = """
[own]
tier = "own"
message_bytes = 262144
grafana = true

[free]
tier = "free"
message_bytes = 32768
grafana = false
requests_per_minute = 20
"""


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def written(url: str) -> int:
    """How often a row of the table was written."""
    with psycopg.connect(url) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute(
            "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'request_window'"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def passes(rates: Rates, account: int, limit: int, now: datetime) -> bool:
    try:
        await rates.take(account, limit, now)
    except TooManyRequests:
        return False
    return True


@pytest.mark.parametrize("limit", [1, 2, 20, 300, 3000])
def test_one_process_gives_exactly_the_plans_requests_and_writes_little(
    settings: Settings, owner: Tenant, database_url: str, limit: int
) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            rates = Rates(pool)
            told = []
            for number in range(limit):
                headers = await rates.take(owner.account_id, limit, after(number / 100))
                told.append(int(headers["RateLimit"].partition("r=")[2].partition(";")[0]))
            assert told == list(range(limit - 1, -1, -1))
            for _ in range(50):
                assert not await passes(rates, owner.account_id, limit, after(59.9))
            assert await passes(rates, owner.account_id, limit, after(60))

    asyncio.run(work())
    # a sixteenth at a time until one at a time, and nothing for the refused ones
    assert written(database_url) <= {1: 2, 2: 3, 20: 21, 300: 75, 3000: 130}[limit] + 1


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_never_pass_the_limit_and_come_close_to_it(
    settings: Settings, owner: Tenant, processes: int
) -> None:
    limit = 300

    async def client(rates: Rates, share: int) -> int:
        return sum([await passes(rates, owner.account_id, limit, NOON) for _ in range(share)])

    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            crowd = [Rates(pool) for _ in range(processes)]
            counts = await asyncio.gather(
                *(client(rates, share) for rates in crowd for share in (37, 211, 1, 150))
            )
            assert sum(counts) == limit, "all kept asking, so nothing is held back"

    asyncio.run(work())


def test_a_process_that_is_left_holds_back_no_more_than_it_used(
    settings: Settings, owner: Tenant
) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            left, busy = Rates(pool), Rates(pool)
            used = 5
            for _ in range(used):
                assert await passes(left, owner.account_id, 300, NOON)
            passed = sum([await passes(busy, owner.account_id, 300, NOON) for _ in range(400)])
            assert 300 - 2 * used <= passed <= 300 - used

    asyncio.run(work())


def test_a_better_plan_helps_at_once_and_accounts_do_not_share(
    settings: Settings, owner: Tenant, attacker: Tenant
) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            rates = Rates(pool)
            for _ in range(3):
                await rates.take(owner.account_id, 3, NOON)
            assert not await passes(rates, owner.account_id, 3, NOON)
            assert await passes(rates, attacker.account_id, 3, NOON)
            assert sum([await passes(rates, owner.account_id, 10, NOON) for _ in range(9)]) == 7
            # and a worse one too, in whatever process
            assert not await passes(Rates(pool), owner.account_id, 3, after(1))

    asyncio.run(work())


def test_a_process_that_waited_for_its_turn_opens_no_window_of_its_own(
    settings: Settings, owner: Tenant
) -> None:
    """It looked at its clock before the one that came first did."""

    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            first, late = Rates(pool), Rates(pool)
            assert await passes(first, owner.account_id, 3, after(0.5))
            passed = [await passes(late, owner.account_id, 3, after(0.1 * n)) for n in range(4)]
            assert passed == [True, True, False, False]

    asyncio.run(work())


def test_a_clock_set_back_does_not_lock_anybody_out(settings: Settings, owner: Tenant) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            rates = Rates(pool)
            for _ in range(4):
                await passes(rates, owner.account_id, 3, after(86_400))
            for process in (rates, Rates(pool)):
                assert await passes(process, owner.account_id, 3, NOON)

    asyncio.run(work())


def test_an_account_that_is_gone_is_401(settings: Settings) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            with pytest.raises(Unauthorized):
                await Rates(pool).take(12345, 3, NOON)

    asyncio.run(work())


def test_memory_is_bounded_by_the_accounts_that_ask(settings, owner, monkeypatch) -> None:
    monkeypatch.setattr("paqett.web.rate._MANY", 2)

    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            rates = Rates(pool)
            tenants = [make_tenant(settings.database.url, f"t{n}", devices=0) for n in range(3)]
            for number, tenant in enumerate(tenants):
                await rates.take(tenant.account_id, 3, after(61 * number))
            assert list(rates._leases) == [tenants[2].account_id]

    asyncio.run(work())


@pytest.fixture
def plans_file(tmp_path) -> str:
    path = tmp_path / "plans.toml"
    path.write_text(PLANS)
    return str(path)


def test_headers_on_counted_answers_429_past_the_limit_and_ingest_never_counted(
    make_or_change, free_tenant: Tenant
) -> None:
    api = make_or_change

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(free_tenant.account_id)}"}
        sent = f"/api/v1/devices/{free_tenant.devices[0]}/telemetry"
        for number in range(30):
            answer = await client.post(sent, json={"t": number}, headers=headers)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers
        # a second key is of the same account, and errors count as well
        other = {"Authorization": f"Bearer {await api.key(free_tenant.account_id)}"}
        statuses: Counter[int] = Counter()
        for number in range(20):
            asked = "/api/v1/devices" if number % 3 else "/api/v1/devices/nobody"
            answer = await client.get(asked, headers=other if number % 2 else headers)
            statuses[answer.status_code] += 1
            assert answer.headers["ratelimit-policy"] == '"requests";q=20;w=60'
            left, _, resets = answer.headers["ratelimit"].partition(";t=")
            assert left == f'"requests";r={19 - number}'
            assert 1 <= int(resets) <= 60
        assert statuses == {200: 13, 404: 7}
        for _ in range(3):
            answer = await client.get("/api/v1/devices", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
            assert answer.headers["ratelimit-policy"] == '"requests";q=20;w=60'
        assert (await client.post(sent, json={"t": 99}, headers=headers)).status_code == 200
        assert (await client.get("/api/v1/devices")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200

    api.run(work)


def test_the_own_plan_has_no_limit_and_no_header(api, owner: Tenant) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        answer = await client.get("/api/v1/devices", headers=headers)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("ratelimit")]

    api.run(work)


@pytest.fixture
def make_or_change(api, plans_file: str) -> Any:
    """The API with small plans."""
    general = msgspec.structs.replace(api.settings.paqett, plans_file=plans_file)
    api.settings = msgspec.structs.replace(api.settings, paqett=general)
    return api


def test_two_api_processes_count_together_and_add_up_in_usage(
    database_url: str, plans_file: str, api
) -> None:
    """Over real sockets: both are asked at once; when they have stopped, all is written."""
    tenant = make_tenant(database_url, "both", plan="free")
    environ = {"PAQETT_PAQETT__PLANS_FILE": plans_file}

    async def work() -> list[int]:
        key = await api.key(tenant.account_id)
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            listening(database_url, **environ) as one,
            listening(database_url, **environ) as two,
            httpx.AsyncClient(headers=headers) as client,
        ):
            assert one.port != two.port
            urls = [f"{(one, two)[n % 2].url}/api/v1/devices" for n in range(50)]
            answers = await asyncio.gather(*(client.get(url) for url in urls))
            return [answer.status_code for answer in answers]

    assert Counter(asyncio.run(work())) == {200: 20, 429: 30}
    with psycopg.connect(database_url) as conn:
        rows = conn.execute("SELECT requests, bytes_in FROM api_usage_day").fetchall()
    assert rows == [(50, 0)], "no request is lost or doubled when processes stop"
