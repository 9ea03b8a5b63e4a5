"""Requests and bytes of each key and day: exact, kept through an outage, shown in /usage."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from paqett import db
from paqett.accounts import Account
from paqett.errors import Unavailable
from paqett.principals import Principal
from paqett.settings import Settings
from paqett.web.meter import Meter
from support import Tenant, with_url

USAGE = "/api/v1/usage"
DAY = date(2026, 11, 25)


def principal(tenant: Tenant, key: int | None, devices: frozenset[str] | None = None) -> Principal:
    account = Account(
        tenant.account_id, "a@example.org", "own", "own", None, datetime.now(UTC), timedelta(1)
    )
    return Principal(account, key, frozenset(), devices)


def rows(url: str) -> list[Any]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT * FROM api_usage_day ORDER BY 1, 2, 3").fetchall()


def test_counts_of_many_processes_add_up(settings: Settings, owner, attacker, database_url) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            meters = [Meter(pool) for _ in range(5)]
            for _ in range(6):
                for number, meter in enumerate(meters):
                    # in another order in each, so that locks taken carelessly would deadlock
                    tenants = [owner, attacker] if number % 2 else [attacker, owner]
                    for tenant in tenants:
                        for key in (None, 7, 3):
                            meter.add(principal(tenant, key), DAY, 1, 10, 100)
                            meter.add(principal(tenant, key), DAY + timedelta(days=1), 1, 0, 1)
                await asyncio.gather(*(meter.flush() for meter in meters))

    asyncio.run(work())
    assert rows(database_url) == [
        (tenant.account_id, day, key, 30, received, sent)
        for tenant in (owner, attacker)
        for day, received, sent in ((DAY, 300, 3000), (DAY + timedelta(days=1), 0, 30))
        for key in (0, 3, 7)
    ]


def test_nothing_is_lost_while_the_database_is_away(settings, owner, database_url) -> None:
    async def work() -> None:
        away = with_url(
            "postgresql://nobody:x@127.0.0.1:1/none", PAQETT_DATABASE__CONNECT_TIMEOUT_S="0.2"
        )
        async with (
            db.pool(away.database, "test") as nowhere,
            db.pool(settings.database, "test") as pool,
        ):
            meter = Meter(nowhere)
            for _ in range(2):
                meter.add(principal(owner, 7), DAY, 1, 2, 3)
                with pytest.raises(Unavailable):
                    await meter.flush()
            meter._pool = pool
            meter.add(principal(owner, 7), DAY, 1, 2, 3)
            await meter.flush()
            await meter.flush()

    asyncio.run(work())
    assert rows(database_url) == [(owner.account_id, DAY, 7, 3, 6, 9)]


def test_an_account_that_is_gone_takes_nobody_elses_counts_along(
    settings, owner, attacker, database_url
) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            meter = Meter(pool)
            for tenant in (owner, attacker):
                meter.add(principal(tenant, 7), DAY, 1, 2, 3)
            async with db.transaction(pool) as conn:
                await conn.execute("DELETE FROM account WHERE id = %s", (attacker.account_id,))
            await meter.flush()

    asyncio.run(work())
    assert rows(database_url) == [(owner.account_id, DAY, 7, 1, 2, 3)]


def test_it_writes_by_itself_and_once_more_when_asked_to_stop(
    settings, owner, database_url, monkeypatch
) -> None:
    monkeypatch.setattr("paqett.web.meter._EVERY_S", 0.05)

    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            meter, stop = Meter(pool), asyncio.Event()
            running = asyncio.create_task(meter.run(stop))
            meter.add(principal(owner, 7), DAY, 1, 0, 0)
            for _ in range(200):
                await asyncio.sleep(0.02)
                if rows(database_url):
                    break
            assert rows(database_url) == [(owner.account_id, DAY, 7, 1, 0, 0)]
            meter.add(principal(owner, 7), DAY, 1, 0, 0)
            stop.set()
            await running

    asyncio.run(work())
    assert rows(database_url) == [(owner.account_id, DAY, 7, 2, 0, 0)]


def test_usage_shows_requests_and_bytes_by_key(api, owner: Tenant, database_url: str) -> None:
    mine = owner.devices[0]

    async def work(client: httpx.AsyncClient) -> None:
        meter = client._transport.app.state.meter  # type: ignore[attr-defined]
        first = await api.key(owner.account_id)
        second = await api.key(owner.account_id, devices=[mine])

        async def usage(key: str, days: int = 30) -> Any:
            await meter.flush()
            headers = {"Authorization": f"Bearer {key}"}
            return (await client.get(USAGE, params={"days": days}, headers=headers)).json()["api"]

        headers = {"Authorization": f"Bearer {first}"}
        answer = await client.post(
            f"/api/v1/devices/{mine}/telemetry", content=b'{"t": 1}', headers=headers
        )
        sent = len(answer.content)
        # refusals are requests too, as long as it is known whose they are
        answer = await client.get("/api/v1/devices/nobody", headers=headers)
        sent += len(answer.content)
        await client.get("/api/v1/devices")
        found = await usage(first)
        assert found["today"] == {"requests": 2, "bytes_in": 8, "bytes_out": sent}
        [row] = found["keys"]
        assert row == {**found["today"], "key": row["key"], "name": "test"}
        headers = {"Authorization": f"Bearer {second}"}
        await client.get(f"/api/v1/devices/{mine}", headers=headers)
        found = await usage(first)
        assert [row["requests"] for row in found["keys"]] == [3, 1]
        assert found["today"]["requests"] == 4
        # a key for certain devices sees its own alone
        found = await usage(second)
        assert [row["requests"] for row in found["keys"]] == [1]
        assert found["today"]["requests"] == 1
        await meter.flush()
        with psycopg.connect(database_url) as conn:
            # as if it had been three days ago, and the first key were deleted since
            conn.execute("UPDATE api_usage_day SET day = day - 3")
            conn.execute("DELETE FROM api_key WHERE device_ids IS NULL")
        third = await api.key(owner.account_id)
        found = await usage(third)
        assert found["keys"] == []
        assert [(day["requests"]) for day in found["days"]] == [6]
        assert (await usage(third, 2))["days"] == []
        with psycopg.connect(database_url) as conn:
            conn.execute("UPDATE api_usage_day SET day = day + 3 WHERE day < current_date")
        names = [row["name"] for row in (await usage(third))["keys"]]
        assert names == [None, "test", "test"], "its counts stay, its name is gone"

    api.run(work)


def test_a_devices_own_requests_stand_with_the_devices(settings, owner, database_url) -> None:
    async def work() -> None:
        async with db.pool(settings.database, "test") as pool:
            meter = Meter(pool)
            meter.add(principal(owner, None, frozenset({owner.devices[0]})), DAY, 1, 2, 3)
            await meter.flush()

    asyncio.run(work())
    assert rows(database_url) == []
