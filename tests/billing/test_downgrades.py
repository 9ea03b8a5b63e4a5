"""What happens when a plan ends: limits at once, readings after 14 days and three letters."""

from datetime import timedelta
from typing import Any

import pytest

from paqett.mail_rendering import local_time
from paqett.worker import moving
from people import Person
from shop import Shop


@pytest.fixture
def shop(make_shop: Any) -> Shop:
    made: Shop = make_shop(PAQETT_PAQETT__PUBLIC_URL="http://paqett.example.org")
    return made


async def fill(shop: Shop, ada: Person) -> str:
    """Readings of the last 30 days, one a day; the device they are of."""
    answer = await ada.ask("POST", "/devices", json={"thing_name": "thing"})
    device = str(answer.json()["id"])
    items = [
        {"ts": (shop.now() - timedelta(days=days, hours=1)).isoformat(), "t": days}
        for days in range(30)
    ]
    answer = await ada.ask("POST", f"/devices/{device}/telemetry", json=items)
    assert answer.json()["accepted"] == 30, answer.text
    return device


async def lapsed(shop: Shop) -> tuple[Person, str]:
    """A person whose subscription ended unpaid, and their device with its 30 readings."""
    ada = await shop.person()
    bought = await shop.buy(ada)
    await shop.deliver_all()
    await moving.move_readings(shop.services)
    device = await fill(shop, ada)
    shop.fake.cancel(bought["id"], "payment_failed")
    await shop.deliver_all()
    return ada, device


async def seen(ada: Person, device: str) -> int:
    assert (await ada.sign_in()).status_code == 200  # days have passed
    answer = await ada.ask("GET", f"/devices/{device}/telemetry", params={"from": "-100d"})
    assert answer.status_code == 200, answer.text
    return len(answer.json()["items"])


async def round_(shop: Shop) -> None:
    """What the worker does by the clock."""
    await moving.remind_of_grace(shop.services)
    await moving.move_readings(shop.services)
    await shop.work()


def test_the_grace_is_told_three_times_and_then_the_rest_is_erased(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada, device = await lapsed(shop)
        due = shop.now() + timedelta(days=14)
        plan = await shop.plan(ada)
        assert plan["name"] == "free"
        assert await seen(ada, device) == 30
        for _ in range(3):
            await round_(shop)
        assert shop.told()[-1] == "subscription_ended"
        shop.later(days=7, minutes=1)
        for _ in range(3):
            await round_(shop)
        assert shop.told()[-2:] == ["subscription_ended", "readings_erased_soon"]
        shop.later(days=6)
        for _ in range(3):
            await round_(shop)
        assert shop.told()[-3:] == [
            "subscription_ended", "readings_erased_soon", "readings_erased_soon",
        ]  # fmt: skip
        told = shop.rows("SELECT data FROM notice WHERE event = 'readings_erased_soon'")
        for (data,) in told:
            assert data["plan"] == "free"
            assert data["days"] == 7
            assert data["erased_at"][:10] == due.isoformat()[:10]
        # 13 days of the 30 have passed; nothing is gone that the plan did not keep anyway
        assert await seen(ada, device) == 30
        shop.later(days=1)
        await round_(shop)
        assert shop.rows("SELECT tier, moving_from FROM account") == [("free", None)]
        assert shop.rows("SELECT count(*) FROM telemetry_paid") == [(0,)]
        assert await seen(ada, device) == 0

    shop.run(work)


def test_each_letter_has_the_day_and_leads_to_the_export(shop: Shop) -> None:
    from paqett import db, letters, notices

    async def work(shop: Shop) -> None:
        await shop.person()
        due = shop.now() + timedelta(days=14)
        terms = letters.terms(shop.services.settings)
        for event, data in (
            ("subscription_ended", {"plan": "paid", "now_on": "free", "erased_at": due}),
            ("plan_smaller", {"plan": "free", "days": 7, "erased_at": due}),
            ("readings_erased_soon", {"plan": "free", "days": 7, "erased_at": due}),
            ("downgrade_ahead", {"plan": "paid", "ends_at": due}),
        ):
            async with db.transaction(shop.services.pool) as conn:
                await notices.notify(conn, 1, event, **data)
                (notice,) = shop.rows("SELECT coalesce(max(id), 0) + 1 FROM notice")[0]
                mail = await letters.write(conn, terms, "notice", 1, {"notice": notice}, shop.now())
            assert mail is not None
            assert local_time(due, "UTC") in " ".join(mail.text.split())
            for form in (mail.text, mail.html):
                assert "http://paqett.example.org/settings" in form
            assert "Export all my data" in mail.text

    shop.run(work)


def test_a_larger_plan_within_the_grace_calls_it_off(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada, device = await lapsed(shop)
        assert (await shop.plan(ada))["readings_follow_at"] is not None
        shop.later(days=10)
        await shop.buy(ada)
        await shop.deliver_all()
        assert (await shop.plan(ada))["readings_follow_at"] is None
        told = shop.told()
        shop.later(days=30)
        await round_(shop)
        assert shop.told() == told
        assert shop.rows("SELECT tier, moving_from FROM account") == [("paid", None)]
        assert await seen(ada, device) == 30

    shop.run(work)


def test_the_newest_alert_rules_are_paused_and_come_back(shop: Shop) -> None:
    rule = {"kind": "threshold", "metric": "t", "operator": ">", "threshold": 10}

    async def rules(ada: Person) -> list[bool]:
        items = (await ada.ask("GET", "/alert-rules")).json()["items"]
        return [item["paused_at"] is not None for item in items]

    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        await shop.deliver_all()
        made = [
            (await ada.ask("POST", "/alert-rules", json={"name": f"r{n}", **rule})).json()["id"]
            for n in range(5)
        ]
        device = (await ada.ask("POST", "/devices", json={"thing_name": "thing"})).json()["id"]
        await ada.ask("POST", f"/devices/{device}/telemetry", json={"t": 11})
        firing = "SELECT count(*) FROM alert WHERE state = 'firing'"
        assert shop.rows(firing) == [(5,)]
        shop.fake.cancel(bought["id"], "payment_failed")
        await shop.deliver_all()
        assert await rules(ada) == [False, False, False, True, True]
        assert shop.rows(firing) == [(3,)]
        assert shop.rows("SELECT data FROM notice WHERE event = 'rules_paused'") == [
            ({"count": 2, "limit": 3},)
        ]
        # what comes now is judged by the others alone
        await ada.ask("POST", f"/devices/{device}/telemetry", json={"t": 1})
        await ada.ask("POST", f"/devices/{device}/telemetry", json={"t": 12})
        assert shop.rows(firing) == [(3,)]
        refused = await ada.ask("POST", "/alert-rules", json={"name": "more", **rule})
        assert refused.json()["code"] == "plan_limit"
        # a paused one leaves no place, another does
        await ada.ask("DELETE", f"/alert-rules/{made[4]}")
        assert await rules(ada) == [False, False, False, True]
        await ada.ask("DELETE", f"/alert-rules/{made[0]}")
        assert await rules(ada) == [False, False, False]
        made.append((await ada.ask("POST", "/alert-rules", json={"name": "x", **rule})).json())
        await shop.buy(ada)
        await shop.deliver_all()
        assert await rules(ada) == [False, False, False]
        await ada.ask("POST", f"/devices/{device}/telemetry", json={"t": 13})
        assert shop.rows(firing) == [(3,)]

    shop.run(work)
