"""Stripe's webhooks: only its own, only fresh, each once."""

import json
import time
from typing import Any

import pytest

from paqett.local.fake_stripe.objects import Json
from paqett.local.fake_stripe.webhooks import signed
from shop import WEBHOOK_SECRET, Shop


async def bought(shop: Shop) -> Json:
    """Somebody paid; the event that says so."""
    await shop.buy(await shop.person())
    return next(e for e in shop.fake.events if e["type"] == "customer.subscription.created")


def jobs_of(shop: Shop) -> int:
    found = shop.rows("SELECT * FROM procrastinate_jobs WHERE task_name = 'sync_subscription'")
    return len(found)


@pytest.mark.parametrize(
    "forged",
    [
        {"secret": "whsec_somebody_elses"},
        {"headers": {"Stripe-Signature": ""}},
        {"headers": {"Stripe-Signature": "t=1,v1="}},
        {"headers": {"Stripe-Signature": "v1=abc"}},
        {"headers": {"Stripe-Signature": f"t={'9' * 5000},v1=abc"}},
        {"headers": {"Stripe-Signature": f"t={int(time.time())},v0=abc"}},
        {"headers": {"Stripe-Signature": b"t=1,v1=\xe9"}},
        {"at": time.time() - 600},
        {"body": b'{"id": "evt_other"}'},
        {"body": b"\xff\xfe"},
        {"body": b""},
    ],
)
def test_what_stripe_did_not_sign_just_now_is_refused(shop: Shop, forged: dict[str, Any]) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        answer = await shop.deliver(event, **forged)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_signature")
        assert jobs_of(shop) == 0
        assert shop.rows("SELECT * FROM stripe_event") == []

    shop.run(work)


def test_a_signature_of_another_body_is_refused(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        _, headers = signed({**event, "id": "evt_other"}, WEBHOOK_SECRET)
        answer = await shop.deliver(event, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_signature")

    shop.run(work)


def test_one_of_two_signatures_is_enough_while_a_secret_is_rolled(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        _, old = signed(event, "whsec_old")
        _, new = signed(event, WEBHOOK_SECRET)
        other = old["Stripe-Signature"].partition("v1=")[2]
        header = f"{new['Stripe-Signature']},v1={other}"
        answer = await shop.deliver(event, headers={"Stripe-Signature": header})
        assert (answer.status_code, answer.json()) == (200, {"duplicate": False})

    shop.run(work)


def test_an_event_is_worked_once_however_often_it_comes(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        answers = [(await shop.deliver(event)).json()["duplicate"] for _ in range(4)]
        assert answers == [False, True, True, True]
        assert jobs_of(shop) == 1
        await shop.work()
        assert (await shop.deliver(event)).json() == {"duplicate": True}
        assert jobs_of(shop) == 0
        assert shop.told() == ["subscription_started"]

    shop.run(work)


def test_a_replay_after_the_tolerance_is_refused(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        body, headers = signed(event, WEBHOOK_SECRET, time.time() - 301)
        for _ in range(2):
            answer = await shop.client.post("/hooks/stripe", content=body, headers=headers)
            assert answer.status_code == 400

    shop.run(work)


def test_the_answer_comes_before_stripe_is_asked(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        asked = len(shop.server.requests)
        shop.server.trouble.down = True
        assert (await shop.deliver(event)).status_code == 200
        assert len(shop.server.requests) == asked
        await shop.work()  # in vain, and again later
        assert shop.rows("SELECT status::text FROM procrastinate_jobs") == [("todo",)]
        assert shop.rows("SELECT error FROM job_error")[0][0].startswith("StripeUnavailable")
        shop.server.trouble.down = False
        shop.rows("UPDATE procrastinate_jobs SET scheduled_at = NULL")
        await shop.work()
        assert shop.rows("SELECT plan FROM account") == [("paid",)]

    shop.run(work)


def test_an_event_of_a_strangers_customer_asks_for_nothing(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        event["data"]["object"]["customer"] = "cus_of_another_installation"
        assert (await shop.deliver(event)).status_code == 200
        for about in ({}, {"object": "charge"}, {"object": "customer", "id": "cus_x"}):
            other = {**event, "id": f"evt_{len(about)}_{about}", "data": {"object": about}}
            assert (await shop.deliver(other)).status_code == 200
        assert jobs_of(shop) == 0

    shop.run(work)


@pytest.mark.parametrize(
    "signed_body",
    ["", "[]", "{}", '{"id": "evt_1"}', '{"id": 7, "type": "x", "data": {"object": {}}}',
     '{"id": "evt\\u0000", "type": "x", "data": {"object": {}}}',
     '{"id": "%s", "type": "x", "data": {"object": {}}}' % ("e" * 300),
     '{"id": "evt_1", "object": "v2.core.event", "type": "x"}'],
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_422(shop: Shop, signed_body: str) -> None:
    from paqett.billing.client import sign

    async def work(shop: Shop) -> None:
        header = sign(signed_body, WEBHOOK_SECRET, int(time.time()))
        answer = await shop.client.post(
            "/hooks/stripe", content=signed_body, headers={"Stripe-Signature": header}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert shop.rows("SELECT * FROM stripe_event") == []

    shop.run(work)


def test_events_are_forgotten_after_30_days(shop: Shop) -> None:
    from paqett.worker import billing

    async def work(shop: Shop) -> None:
        await shop.deliver(await bought(shop))
        shop.later(days=29)
        await billing.forget_events(shop.services)
        assert len(shop.rows("SELECT * FROM stripe_event")) == 1
        shop.later(days=2)
        await billing.forget_events(shop.services)
        assert shop.rows("SELECT * FROM stripe_event") == []

    shop.run(work)


def test_no_secret_reaches_a_log_or_the_database(shop: Shop, caplog, capfd) -> None:  # type: ignore[no-untyped-def]
    async def work(shop: Shop) -> None:
        event = await bought(shop)
        await shop.deliver(event)
        await shop.deliver(event, secret="whsec_wrong")
        await shop.work()
        shop.server.trouble.down = True
        await shop.deliver({**event, "id": "evt_2"})
        await shop.work()

    caplog.set_level("DEBUG")
    shop.run(work)
    out, err = capfd.readouterr()
    said = out + err + caplog.text
    assert "sync_subscription" in said
    stored = json.dumps(
        [
            shop.rows(f"SELECT t::text FROM {table} AS t")
            for table in ("procrastinate_jobs", "job_error", "stripe_event", "subscription")
        ]
    )
    for secret in (shop.environ["PAQETT_STRIPE__SECRET_KEY"], WEBHOOK_SECRET):
        assert secret not in said + stored
