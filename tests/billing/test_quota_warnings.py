"""80, 90 and 100 % of the day's points: told once a UTC day each, from the counters."""

import asyncio
from datetime import timedelta

from paqett.worker import billing
from people import Person
from shop import Shop

QUOTA = 250_000


async def receive(shop: Shop, person: Person, points: int) -> None:
    """So many points of the day, as flushes leave them in the row that a first one made."""
    if not shop.rows("SELECT account_id FROM allowance"):
        made = (await person.ask("POST", "/devices", json={"thing_name": "a"})).json()
        path = f"/devices/{made['id']}/telemetry"
        assert (await person.ask("POST", path, json={"t": 1})).status_code == 200
        assert shop.rows("SELECT points FROM allowance") == [(1,)]
    shop.rows("UPDATE allowance SET points = %s, day = %s", points, shop.now().date())


def levels(shop: Shop) -> list[int]:
    rows = shop.rows("SELECT data->'level' FROM notice WHERE kind = 'usage' ORDER BY id")
    return [level for (level,) in rows]


def test_each_level_is_told_once_a_day(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await receive(shop, ada, QUOTA * 79 // 100)
        await billing.warn_of_quotas(shop.services)
        assert levels(shop) == []
        for percent, told in ((80, [80]), (85, [80]), (90, [80, 90]), (140, [80, 90, 100])):
            await receive(shop, ada, QUOTA * percent // 100)
            await billing.warn_of_quotas(shop.services)
            await billing.warn_of_quotas(shop.services)
            assert levels(shop) == told
        assert shop.told("usage") == ["quota_near", "quota_near", "quota_reached"]
        ((data,),) = shop.rows("SELECT data FROM notice WHERE event = 'quota_reached'")
        midnight = (shop.now() + timedelta(days=1)).date()
        assert data["resets_at"].startswith(f"{midnight}T00:00:00")
        assert (data["used"], data["quota"]) == (QUOTA * 14 // 10, QUOTA)
        shop.later(days=1)
        await billing.warn_of_quotas(shop.services)
        assert levels(shop) == [80, 90, 100]
        await receive(shop, ada, QUOTA)
        await billing.warn_of_quotas(shop.services)
        assert levels(shop) == [80, 90, 100, 80, 90, 100]

    shop.run(work)


def test_two_workers_tell_it_once(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await receive(shop, ada, QUOTA)
        await asyncio.gather(*(billing.warn_of_quotas(shop.services) for _ in range(5)))
        assert levels(shop) == [80, 90, 100]

    shop.run(work)


def test_a_plan_without_a_limit_warns_of_nothing(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await receive(shop, ada, 10 * QUOTA)
        shop.rows("UPDATE account SET plan = 'own'")
        await billing.warn_of_quotas(shop.services)
        assert levels(shop) == []
        # the paid plan has room for these
        shop.rows("UPDATE account SET plan = 'paid'")
        await billing.warn_of_quotas(shop.services)
        assert levels(shop) == []

    shop.run(work)


def test_warnings_are_forgotten_after_a_week(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await receive(shop, ada, QUOTA)
        await billing.warn_of_quotas(shop.services)
        shop.later(days=6)
        await billing.forget_events(shop.services)
        assert len(shop.rows("SELECT * FROM usage_warning")) == 3
        shop.later(days=2)
        await billing.forget_events(shop.services)
        assert shop.rows("SELECT * FROM usage_warning") == []

    shop.run(work)
