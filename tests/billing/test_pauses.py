"""Devices over a smaller plan's limit: the newest are paused, and come back."""

import asyncio
import base64
from typing import Any

import httpx
import psycopg

from paqett import accounts, db, devices, moves, pauses
from paqett.db import Connection
from people import Person
from shop import Shop
from support import in_database


async def make(person: Person, number: int) -> list[dict[str, Any]]:
    made = []
    for n in range(number):
        answer = await person.ask("POST", "/devices", json={"thing_name": f"thing-{n}"})
        assert answer.status_code == 201, answer.text
        made.append(answer.json())
    return made


async def paused(person: Person) -> list[str]:
    items = (await person.ask("GET", "/devices")).json()["items"]
    return [item["thing_name"] for item in items if item["paused_at"] is not None]


async def send(shop: Shop, device: dict[str, Any]) -> httpx.Response:
    basic = base64.b64encode(f"{device['id']}:{device['secret']}".encode()).decode()
    return await shop.client.post(
        f"/api/v1/devices/{device['id']}/telemetry", json={"t": 1},
        headers={"Authorization": f"Basic {basic}"},
    )  # fmt: skip


def served(shop: Shop) -> set[str]:
    """Whom the broker lets in."""
    from paqett.sqlfiles import query

    with psycopg.connect(shop.url) as conn:
        return {row[0] for row in conn.execute(query("unscoped_device_verifiers")).fetchall()}


def test_the_newest_are_paused_and_refused_and_come_back_with_the_plan(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        await shop.deliver_all()
        made = await make(ada, 8)
        assert await paused(ada) == []
        shop.fake.cancel(bought["id"], "payment_failed")
        await shop.deliver_all()
        assert await paused(ada) == ["thing-5", "thing-6", "thing-7"]
        assert served(shop) == {device["id"] for device in made[:5]}
        refused = await send(shop, made[7])
        assert (refused.status_code, refused.json()["code"]) == (403, "device_disabled")
        by_person = await ada.ask("POST", f"/devices/{made[7]['id']}/telemetry", json={"t": 1})
        assert (by_person.status_code, by_person.json()["code"]) == (403, "device_disabled")
        assert (await send(shop, made[0])).status_code == 200
        shown = (await ada.ask("GET", f"/devices/{made[7]['id']}")).json()
        assert shown["paused_at"] is not None
        assert "devices_paused" in shop.told()
        await shop.buy(ada)
        await shop.deliver_all()
        assert await paused(ada) == []
        assert (await send(shop, made[7])).status_code == 200
        assert shop.told()[-2:] == ["devices_resumed", "subscription_started"]

    shop.run(work)


def test_a_deleted_device_leaves_its_place_to_the_oldest_paused_one(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        await shop.deliver_all()
        made = await make(ada, 8)
        shop.fake.cancel(bought["id"], "payment_failed")
        await shop.deliver_all()
        new = await ada.ask("POST", "/devices", json={"thing_name": "one more"})
        assert (new.status_code, new.json()["code"]) == (409, "plan_limit")
        # a paused one leaves no place
        assert (await ada.ask("DELETE", f"/devices/{made[6]['id']}")).status_code == 204
        assert await paused(ada) == ["thing-5", "thing-7"]
        assert (await ada.ask("DELETE", f"/devices/{made[0]['id']}")).status_code == 204
        assert await paused(ada) == ["thing-7"]
        assert made[5]["id"] in served(shop)

    shop.run(work)


def test_without_stripe_an_operators_change_of_plan_pauses_too(owner, database_url) -> None:  # type: ignore[no-untyped-def]
    from paqett.app import utc_now
    from paqett.plans import load_plans
    from paqett.settings import load

    plans = load_plans(load({}).plans_file)

    async def change(conn: Connection, plan: str) -> int:
        async with conn.transaction():
            await moves.set_plan(conn, owner.account_id, plans[plan], utc_now())
        found = await conn.execute("SELECT count(*) AS n FROM device WHERE paused_at IS NOT NULL")
        row = await found.fetchone()
        assert row is not None
        return int(row["n"])

    async def work(conn: Connection) -> None:
        account = await accounts.find(conn, str(owner.account_id))
        for number in range(6):
            await devices.create(conn, account, plans["own"], thing_name=f"more-{number}")
        assert await change(conn, "free") == 3
        assert await change(conn, "free") == 3
        assert await change(conn, "paid") == 0
        found = await conn.execute("SELECT data FROM notice WHERE event = 'devices_paused'")
        assert [row["data"] for row in await found.fetchall()] == [{"count": 3, "limit": 5}]

    in_database(database_url, work)


def test_changes_of_plan_and_new_or_deleted_devices_at_once_do_not_block_each_other(
    shop: Shop,
) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        account_id = shop.rows("SELECT id FROM account")[0][0]
        shop.rows("UPDATE account SET plan = 'paid', tier = 'paid'")
        made = await make(ada, 12)
        plans, now = shop.services.plans, shop.now()

        async def change(plan: str) -> None:
            async with db.transaction(shop.services.pool) as conn:
                await moves.set_plan(conn, account_id, plans[plan], now)

        async def fit() -> None:
            async with db.transaction(shop.services.pool) as conn:
                await pauses.fit(conn, account_id, 5, now)

        await asyncio.gather(
            change("free"),
            *(ada.ask("DELETE", f"/devices/{device['id']}") for device in made[:4]),
            fit(),
            *(ada.ask("POST", "/devices", json={"thing_name": f"n{n}"}) for n in range(4)),
            change("free"),
        )
        await fit()
        count = shop.rows("SELECT count(*) FILTER (WHERE paused_at IS NULL) FROM device")
        assert count == [(5,)]

    shop.run(work)
