"""With and without Stripe, and settings that could not work."""

import asyncio
import time

import pytest

from paqett.billing.client import Stripe, check, check_receiving, sign
from paqett.billing.problems import BadSignature
from paqett.errors import ConfigurationError
from paqett.settings import load
from shop import Shop

GOOD = {"PAQETT_STRIPE__SECRET_KEY": "sk", "PAQETT_STRIPE__WEBHOOK_SECRET": "whsec"}


def test_without_stripe_nothing_of_billing_is_offered(make_shop) -> None:  # type: ignore[no-untyped-def]
    shop = make_shop(PAQETT_STRIPE__SECRET_KEY="")

    async def work(shop: Shop) -> None:
        ada = await shop.person()
        for path in ("/billing/checkout", "/billing/portal"):
            answer = await ada.ask("POST", path, json={"plan": "paid"})
            assert (answer.status_code, answer.json()["code"]) == (404, "billing_not_set_up")
        answer = await shop.client.post("/hooks/stripe", content=b"{}")
        assert (answer.status_code, answer.json()["code"]) == (404, "billing_not_set_up")
        shown = await shop.plan(ada)
        assert (shown["name"], shown["retention_days"], shown["devices"]) == ("own", 365, None)
        assert (shown["billing"], shown["subscription"], shown["offers"]) == (False, None, [])

    shop.run(work)
    assert shop.server.requests == []


@pytest.mark.parametrize(
    ("environ", "plan"),
    [
        ({}, "own"),
        (GOOD, "free"),
        ({**GOOD, "PAQETT_PAQETT__DEFAULT_PLAN": "paid"}, "paid"),
        ({"PAQETT_PAQETT__DEFAULT_PLAN": "free"}, "free"),
    ],
)
def test_who_names_no_plan_gets_free_where_plans_are_sold(
    environ: dict[str, str], plan: str
) -> None:
    assert load(environ).default_plan == plan


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"PAQETT_STRIPE__WEBHOOK_SECRET": ""}, "webhook_secret"),
        ({"PAQETT_STRIPE__WEBHOOK_TOLERANCE_S": "0"}, "webhook_tolerance_s"),
        ({"PAQETT_STRIPE__API_BASE": "http://api.example.org"}, "api_base"),
    ],
)
def test_settings_that_would_not_be_safe_are_refused(environ: dict[str, str], word: str) -> None:
    check_all(GOOD)
    check_all({**GOOD, "PAQETT_STRIPE__API_BASE": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError, match=word):
        check_all({**GOOD, **environ})


def check_all(environ: dict[str, str]) -> None:
    """As the API does, which is called by Stripe too."""
    own = load(environ).stripe
    check(own)
    check_receiving(own)


def test_the_worker_needs_no_secret_of_webhooks_and_believes_none() -> None:
    async def believe() -> None:
        stripe = Stripe(load({**GOOD, "PAQETT_STRIPE__WEBHOOK_SECRET": ""}).stripe)
        now = int(time.time())
        try:
            stripe.verify(b"{}", sign("{}", "", now))
        finally:
            await stripe.close()

    with pytest.raises(BadSignature):
        asyncio.run(believe())
