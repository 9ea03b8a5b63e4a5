"""Whatever is delivered, in whatever order and however often: the outcome is Stripe's."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paqett.worker import billing, moving
from shop import Shop
from stacks import until

_ACTS: dict[str, Callable[[Any, str], object]] = {
    "renew": lambda fake, one: fake.renew(one),
    "decline": lambda fake, one: fake.renew(one, declined=True),
    "settle": lambda fake, one: fake.settle(one),
    "cancel_later": lambda fake, one: fake.cancel_later(one),
    "keep": lambda fake, one: fake.keep(one),
    "cancel": lambda fake, one: fake.cancel(one),
    "give_up": lambda fake, one: fake.cancel(one, "payment_failed"),
    "end_period": lambda fake, one: fake.end_period(one),
    "unpaid": lambda fake, one: fake.set_status(one, "unpaid"),
    "pause": lambda fake, one: fake.set_status(one, "paused"),
}
STEPS = st.one_of(
    st.tuples(st.just("stripe"), st.sampled_from([*_ACTS, "buy"])),
    st.tuples(st.just("deliver"), st.integers(0, 50)),
    st.tuples(st.just("work"), st.none()),
    st.tuples(st.just("reconcile"), st.none()),
)
_numbers = itertools.count()


def expected(shop: Shop, customer: str) -> str:
    """What Stripe's state is worth, said once more and differently."""
    now = shop.fake.now()
    for one in shop.fake.subscriptions.values():
        if one["customer"] != customer:
            continue
        paid_to = one["items"]["data"][0]["current_period_end"]
        paid = shop.fake.invoices[one["latest_invoice"]]["status"] == "paid"
        if one["status"] in ("active", "past_due"):
            return "paid"
        asked_for = one["cancellation_details"]["reason"] != "payment_failed"
        if one["status"] == "canceled" and paid and asked_for and paid_to > now:
            return "paid"
    return "free"


def act(shop: Shop, customer: str, what: str) -> None:
    mine = [s for s in shop.fake.subscriptions.values() if s["customer"] == customer]
    live = [one["id"] for one in mine if one["status"] != "canceled"]
    if what == "buy" and not live:
        shop.subscribe(customer)
    elif what != "buy" and live:
        _ACTS[what](shop.fake, live[0])


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=14), chance=st.randoms(use_true_random=False))
def test_any_order_and_number_of_webhooks_ends_in_stripes_state(
    shop: Shop, steps: list[tuple[str, Any]], chance: Any
) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber(f"any{next(_numbers)}")
        shop.fake.events.clear()
        shop.subscribe(customer)
        for kind, what in steps:
            if kind == "stripe":
                act(shop, customer, what)
            elif kind == "deliver":
                await shop.deliver(shop.fake.events[what % len(shop.fake.events)])
            elif kind == "work":
                await shop.work()
            else:
                await billing.reconcile(shop.services)
        left = shop.fake.events * 2
        chance.shuffle(left)
        for event in left:
            assert (await shop.deliver(event)).status_code == 200
        shop.later(minutes=1)  # jobs that were put off
        shop.rows("UPDATE procrastinate_jobs SET scheduled_at = NULL")
        await shop.work()
        assert shop.plan_of(account) == expected(shop, customer)
        assert shop.rows("SELECT error FROM job_error") == []
        told = shop.rows("SELECT event FROM notice WHERE account_id = %s ORDER BY id", account)
        begun = [e for (e,) in told if e in ("subscription_started", "subscription_ended")]
        pattern = ["subscription_started", "subscription_ended"] * len(begun)
        assert begun == pattern[: len(begun)]
        assert (shop.plan_of(account) == "paid") == (len(begun) % 2 == 1)

    shop.run(work)


@pytest.mark.parametrize("event", range(3))
def test_any_one_of_the_webhooks_is_enough(shop: Shop, event: int) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        shop.subscribe(customer)
        await shop.deliver(shop.fake.events[event])
        await shop.work()
        assert shop.plan_of(account) == "paid"

    shop.run(work)


def test_lost_webhooks_are_healed_within_minutes_of_a_checkout(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        shop.fake.events.clear()
        await shop.reconcile()
        assert (await shop.plan(ada))["name"] == "paid"

    shop.run(work)


def test_lost_webhooks_are_healed_within_a_day(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        await shop.deliver_all()
        shop.fake.cancel(bought["id"], "payment_failed")
        shop.fake.events.clear()
        shop.later(hours=20)
        await shop.reconcile()
        assert (await shop.plan(ada))["name"] == "paid"
        shop.later(hours=5)
        await shop.reconcile()
        assert (await shop.plan(ada))["name"] == "free"

    shop.run(work)


def test_a_cancelled_plan_ends_with_its_period_though_stripes_word_is_lost(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        bought = await shop.buy(ada)
        shop.fake.cancel_later(bought["id"])
        await shop.deliver_all()
        ends = (await shop.plan(ada))["subscription"]["ends_at"]
        assert ends is not None
        assert shop.told() == ["subscription_started", "downgrade_ahead"]
        shop.later(days=30, minutes=1)
        shop.fake.end_period(bought["id"])
        shop.fake.events.clear()
        await shop.reconcile()
        await ada.sign_in()
        shown = await shop.plan(ada)
        assert (shown["name"], shown["devices"]) == ("free", 5)
        # the readings follow 14 days later
        assert shown["retention_days"] == 90
        assert shown["readings_follow_at"] is not None
        assert shop.told() == ["subscription_started", "downgrade_ahead", "subscription_ended"]

    shop.run(work)


def test_reconciliation_asks_about_each_account_once_a_day(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        shop.subscriber("ada")
        shop.later(hours=25)
        await asyncio.gather(billing.reconcile(shop.services), billing.reconcile(shop.services))
        jobs = shop.rows("SELECT id FROM procrastinate_jobs")
        await shop.reconcile()
        assert len(jobs) == 1
        assert [r for r in shop.server.requests if "/v1/subscriptions" in r] != []
        assert len(shop.server.requests) == 1

    shop.run(work)


def test_two_webhooks_a_reconciliation_and_a_click_at_once_have_one_outcome(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        first, second, *_ = shop.fake.events[-2:]
        shop.later(minutes=10)
        shop.server.trouble.latency_s = 0.05
        answers = await asyncio.gather(
            ada.ask("POST", "/billing/checkout", json={"plan": "paid"}),
            shop.deliver(first),
            shop.deliver(second),
            billing.reconcile(shop.services),
        )
        assert answers[0].json()["code"] == "subscription_live"
        await asyncio.gather(shop.work(), shop.work())
        assert (await shop.plan(ada))["name"] == "paid"
        assert shop.told() == ["subscription_started"]
        assert len(shop.fake.subscriptions) == 1
        assert shop.rows("SELECT error FROM job_error") == []
        assert (
            shop.rows(
                "SELECT task_name FROM procrastinate_jobs WHERE task_name = 'sync_subscription'"
            )
            == []
        )

    shop.run(work)


def test_an_older_answer_of_stripe_never_comes_after_a_newer_one(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        bought = shop.subscribe(customer)
        await shop.sync(account)
        assert shop.plan_of(account) == "paid"
        shop.server.trouble.latency_s = 0.5
        older = asyncio.create_task(shop.sync(account))
        await asyncio.to_thread(until, lambda: len(shop.server.requests) == 2, "it was asked")
        shop.fake.cancel(bought, "payment_failed")
        shop.server.trouble.latency_s = 0
        await asyncio.gather(shop.sync(account), older)
        assert shop.plan_of(account) == "free"

    shop.run(work)


def test_a_failed_payment_is_told_once_and_the_plan_stays(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        bought = shop.subscribe(customer)
        shop.fake.renew(bought, declined=True)
        for _ in range(3):
            await shop.sync(account)
        assert shop.plan_of(account) == "paid"
        assert shop.told() == ["subscription_started", "payment_failed"]
        shop.fake.settle(bought)
        await shop.sync(account)
        shop.fake.renew(bought, declined=True)
        await shop.sync(account)
        shop.fake.cancel(bought, "payment_failed")
        await shop.sync(account)
        assert shop.plan_of(account) == "free"
        assert shop.told() == [
            "subscription_started", "payment_failed", "payment_failed", "subscription_ended",
        ]  # fmt: skip

    shop.run(work)


def test_a_cancellation_taken_back_is_told(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        bought = shop.subscribe(customer)
        await shop.sync(account)
        shop.fake.cancel_later(bought)
        await shop.sync(account)
        shop.fake.keep(bought)
        await shop.sync(account)
        assert shop.told()[1:] == ["downgrade_ahead", "downgrade_called_off"]

    shop.run(work)


def test_a_status_nobody_knows_keeps_the_plan_and_calls_the_operator(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        bought = shop.subscribe(customer)
        await shop.deliver_all()
        shop.fake.set_status(bought, "hibernating")
        await shop.deliver_all()
        assert shop.plan_of(account) == "paid"
        ((status, error),) = shop.rows(
            "SELECT status::text, error FROM procrastinate_jobs JOIN job_error ON job_id = id"
        )
        assert status == "failed"
        assert f"account {account}" in error
        assert "hibernating" in error
        shop.fake.cancel(bought, "payment_failed")
        await shop.deliver_all()
        assert shop.plan_of(account) == "free"

    shop.run(work)


def test_a_plan_an_operator_gave_is_not_taken_by_a_checkout_nobody_paid(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        account, _ = shop.subscriber("ada")
        shop.rows("UPDATE account SET plan = 'own', tier = 'own'")
        await shop.sync(account)
        assert shop.plan_of(account) == "own"

    shop.run(work)


def test_a_subscription_begun_while_readings_still_move_holds_at_once_and_they_follow(
    shop: Shop,
) -> None:
    async def work(shop: Shop) -> None:
        account, customer = shop.subscriber("ada")
        shop.rows("UPDATE account SET tier = 'free', moving_from = 'own'")
        shop.subscribe(customer)
        await shop.deliver_all()
        assert shop.plan_of(account) == "paid"
        standing = "SELECT tier, moving_from, tier_due_at IS NULL FROM account"
        assert shop.rows(standing) == [("free", "own", False)]
        await moving.move_readings(shop.services)  # the first move ends
        assert shop.rows(standing) == [("free", None, False)]
        await moving.move_readings(shop.services)  # and the second begins
        assert shop.rows(standing) == [("paid", None, True)]
        assert shop.rows("SELECT * FROM move") == []

    shop.run(work)
