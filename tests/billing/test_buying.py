"""Buying a plan: Checkout, portal, and what is refused."""

import asyncio

import pytest

from shop import LOOKUP_KEY, Shop


def test_a_plan_is_bought_and_its_limits_hold(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        before = await shop.plan(ada)
        assert (before["name"], before["retention_days"], before["devices"]) == ("free", 7, 5)
        assert before["subscription"] is None
        offer = before["offers"][0]
        assert (offer["name"], offer["retention_days"], offer["devices"]) == ("paid", 90, 50)
        assert offer["price"] == {
            "lookup_key": LOOKUP_KEY, "amount": 900, "currency": "eur", "interval": "month",
            "interval_count": 1,
        }  # fmt: skip
        bought = await shop.buy(ada)
        await shop.deliver_all()
        after = await shop.plan(ada)
        assert (after["name"], after["retention_days"], after["devices"]) == ("paid", 90, 50)
        assert (after["subscription"]["status"], after["subscription"]["plan"]) == (
            "active", "paid",
        )  # fmt: skip
        end = bought["items"]["data"][0]["current_period_end"]
        assert shop.rows("SELECT extract(epoch FROM period_end)::bigint FROM subscription") == [
            (end,)
        ]
        assert shop.told() == ["subscription_started"]

    shop.run(work)


def test_the_checkout_is_for_one_subscription_of_our_customer(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert answer.json()["url"].startswith(shop.server.url)
        (session,) = shop.fake.checkouts.values()
        (customer,) = shop.fake.customers.values()
        account = shop.rows("SELECT id FROM account")[0][0]
        assert (session["mode"], session["customer"]) == ("subscription", customer["id"])
        assert session["client_reference_id"] == customer["metadata"]["account"] == str(account)
        assert customer["email"] == "ada@example.org"
        public = shop.services.settings.public_url
        assert session["success_url"] == f"{public}/settings/plan?checkout=done"
        posts = [asked for asked in shop.server.requests if asked.startswith("POST")]
        assert len(shop.fake.answers) == len(posts) == 2

    shop.run(work)


def test_clicks_at_once_make_one_customer_and_one_checkout(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        shop.server.trouble.latency_s = 0.05
        body = {"plan": "paid"}
        answers = await asyncio.gather(
            *(ada.ask("POST", "/billing/checkout", json=body) for _ in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        assert {a.json()["code"] for a in answers if a.status_code == 409} == {"checkout_open"}
        assert len(shop.fake.checkouts) == len(shop.fake.customers) == 1

    shop.run(work)


def test_a_second_checkout_is_refused_and_leads_to_the_open_one(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        first = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        second = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (second.status_code, second.json()["code"]) == (409, "checkout_open")
        assert second.json()["url"] == first.json()["url"]
        shop.later(hours=2)
        third = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert third.status_code == 200
        assert third.json()["url"] != first.json()["url"]
        assert len(shop.fake.customers) == 1

    shop.run(work)


def test_who_has_a_subscription_gets_no_checkout_even_where_its_webhook_was_lost(
    shop: Shop,
) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (409, "subscription_live")
        await shop.work()  # the refusal found out
        assert (await shop.plan(ada))["name"] == "paid"
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

    shop.run(work)


@pytest.mark.parametrize("status", ["unpaid", "paused", "incomplete", "something_new"])
def test_a_subscription_that_is_not_over_keeps_checkout_shut(shop: Shop, status: str) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        shop.fake.set_status(bought["id"], status)
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (409, "subscription_live")

    shop.run(work)


def test_a_process_killed_while_it_made_a_checkout_keeps_nobody_out_for_long(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        account = shop.rows("SELECT id FROM account")[0][0]
        shop.rows(
            "INSERT INTO subscription (account_id, customer_key, checkout_key, checkout_at)"
            " VALUES (%s, 'a', 'b', %s)", account, shop.now(),
        )  # fmt: skip
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (409, "checkout_open")
        shop.later(seconds=61)
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert answer.status_code == 200

    shop.run(work)


def test_a_missing_price_is_said_and_changes_nothing(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        for price in shop.fake.prices.values():
            price["active"] = False
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (503, "price_not_set_up")
        assert LOOKUP_KEY in answer.json()["detail"]
        assert shop.fake.checkouts == {}
        assert (await shop.plan(ada))["offers"][0]["price"] is None
        shop.fake.add_price(LOOKUP_KEY, 1200)
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert answer.status_code == 200

    shop.run(work)


@pytest.mark.parametrize("plan", ["free", "own", "nonsense", "", None, 7])
def test_what_is_not_sold_is_422(shop: Shop, plan: object) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": plan})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert shop.server.requests == []

    shop.run(work)


def test_the_portal_comes_after_the_first_checkout(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        answer = await ada.ask("POST", "/billing/portal")
        assert (answer.status_code, answer.json()["code"]) == (409, "no_subscription")
        await shop.buy(ada)
        answer = await ada.ask("POST", "/billing/portal")
        assert answer.status_code == 200
        (visit,) = shop.fake.portals.values()
        assert answer.json()["url"] == visit["url"]
        assert visit["return_url"] == f"{shop.services.settings.public_url}/settings/plan"

    shop.run(work)


def test_a_disabled_account_can_still_end_what_it_pays_for(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        shop.rows("UPDATE account SET disabled_at = now()")
        assert (await ada.ask("POST", "/billing/portal")).status_code == 200
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")

    shop.run(work)


@pytest.mark.parametrize("path", ["/billing/checkout", "/billing/portal"])
def test_keys_and_foreign_pages_buy_nothing(shop: Shop, path: str) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        body = {"name": "k", "scopes": ["account:read"]}
        key = (await ada.ask("POST", "/api-keys", json=body)).json()["key"]
        shop.client.cookies.clear()
        url = f"/api/v1{path}"
        headers = {"Authorization": f"Bearer {key}"}
        answer = await shop.client.post(url, json={"plan": "paid"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "session_required")
        shown = await shop.client.get("/api/v1/plan", headers=headers)
        assert shown.status_code == 200
        assert (await shop.client.post(url, json={"plan": "paid"})).status_code == 401
        await ada.sign_in()
        answer = await shop.client.post(url, json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")

    shop.run(work)


def test_stripe_away_is_503_and_the_next_click_works(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        shop.server.trouble.down = True
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert (answer.status_code, answer.json()["code"]) == (503, "billing_unavailable")
        assert answer.headers["retry-after"] == "10"
        assert (await shop.plan(ada))["offers"][0]["price"] is None
        shop.server.trouble.down = False
        answer = await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert answer.status_code == 200

    shop.run(work)


def test_a_customer_deleted_at_stripe_is_replaced_at_the_next_checkout(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await ada.ask("POST", "/billing/checkout", json={"plan": "paid"})
        shop.later(hours=2)
        (first,) = shop.fake.customers
        shop.fake.delete_customer(first)
        answer = await ada.ask("POST", "/billing/portal")
        assert (answer.status_code, answer.json()["code"]) == (409, "no_subscription")
        await shop.buy(ada)
        await shop.deliver_all()
        assert (await shop.plan(ada))["name"] == "paid"
        second = shop.rows("SELECT customer_id FROM subscription")[0][0]
        assert second != first
        assert shop.fake.is_customer(second)

    shop.run(work)


def test_a_customer_stripe_never_knew_loses_nothing_but_the_plan(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        await shop.deliver_all()
        shop.fake.customers.clear()
        shop.later(days=1, minutes=1)
        await shop.reconcile()
        assert (await shop.plan(ada))["name"] == "free"
        assert shop.rows("SELECT customer_id, granted FROM subscription") == [(None, None)]
        await shop.buy(ada)
        await shop.deliver_all()
        assert (await shop.plan(ada))["name"] == "paid"

    shop.run(work)


def test_the_price_of_those_who_pay_already_may_be_replaced(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        await shop.deliver_all()
        shop.fake.add_price(LOOKUP_KEY, 1500)  # takes the key over from the old price
        shop.fake.renew(bought["id"])
        await shop.deliver_all()
        shown = await shop.plan(ada)
        assert (shown["name"], shown["subscription"]["plan"]) == ("paid", "paid")

    shop.run(work)
