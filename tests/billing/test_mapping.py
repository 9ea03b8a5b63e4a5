"""What each status of Stripe's is worth: pure functions, no server."""

from datetime import UTC, datetime, timedelta

import pytest

from paqett.billing.client import Cancellation, Invoice, Item, Items, Price, Subscription
from paqett.billing.mapping import standing
from paqett.billing.sync import decide

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER, BEFORE = NOW + timedelta(days=3), NOW - timedelta(seconds=1)
SOLD = {"key_paid": "paid", "key_team": "team"}


def subscription(
    status: str, *, end: datetime = LATER, key: str | None = "key_paid", reason: str | None = None,
    invoice: str | None = "paid", created: int = 1, name: str = "sub_1", **more: object,
) -> Subscription:  # fmt: skip
    price = Price("price_1", "eur", key, 900)
    return Subscription(
        name, status, created, Items([Item(price, int(end.timestamp()))]),
        cancellation_details=Cancellation(reason),
        latest_invoice=None if invoice is None else Invoice(invoice), **more,
    )  # type: ignore[arg-type] # fmt: skip


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("active", "has"),
        ("trialing", "has"),
        ("past_due", "has"),
        ("unpaid", "none"),
        ("incomplete", "none"),
        ("incomplete_expired", "none"),
        ("paused", "none"),
        ("canceled", "has"),
        ("a_word_of_next_year", "keep"),
    ],
)
def test_every_status_has_its_worth(status: str, verdict: str) -> None:
    found = standing([subscription(status)], SOLD, NOW)
    assert (found.verdict, found.status, found.plan) == (verdict, status, "paid")
    assert bool(found.alerts) == (verdict == "keep")


@pytest.mark.parametrize(
    ("end", "reason", "invoice", "verdict"),
    [
        (LATER, "cancellation_requested", "paid", "has"),
        (LATER, None, None, "has"),
        (BEFORE, "cancellation_requested", "paid", "none"),
        (LATER, "payment_failed", "paid", "none"),
        (LATER, "payment_disputed", "paid", "none"),
        (LATER, "cancellation_requested", "open", "none"),
    ],
)
def test_what_was_paid_for_lasts_to_its_end_and_what_was_not_does_not(
    end: datetime, reason: str | None, invoice: str | None, verdict: str
) -> None:
    one = subscription("canceled", end=end, reason=reason, invoice=invoice)
    found = standing([one], SOLD, NOW)
    assert (found.verdict, found.ends_at) == (verdict, end if verdict == "has" else None)


def test_nothing_bought_is_nothing() -> None:
    assert standing([], SOLD, NOW).verdict == "none"


def test_the_end_is_known_before_it_comes() -> None:
    assert standing([subscription("active")], SOLD, NOW).ends_at is None
    one = subscription("active", cancel_at_period_end=True)
    assert standing([one], SOLD, NOW).ends_at == LATER
    sooner = NOW + timedelta(days=1)
    one = subscription("active", cancel_at=int(sooner.timestamp()))
    assert standing([one], SOLD, NOW).ends_at == sooner


def test_the_price_decides_the_plan_and_then_what_we_wrote_on_it() -> None:
    assert standing([subscription("active", key="key_team")], SOLD, NOW).plan == "team"
    one = subscription("active", key=None, metadata={"plan": "team"})
    assert standing([one], SOLD, NOW).plan == "team"
    one = subscription("active", key="key_paid", metadata={"plan": "team"})
    assert standing([one], SOLD, NOW).plan == "paid"


@pytest.mark.parametrize("metadata", [{}, {"plan": "own"}, {"plan": "gone"}])
def test_a_price_of_no_plan_keeps_the_plan_and_calls_the_operator(metadata: dict[str, str]) -> None:
    found = standing([subscription("active", key="other", metadata=metadata)], SOLD, NOW)
    assert (found.verdict, found.plan) == ("keep", None)
    assert "sub_1" in found.alerts[0]
    assert decide(found, "paid", "paid", "free") == ("paid", "paid")


def test_the_order_in_which_stripe_lists_them_makes_no_difference() -> None:
    old = subscription("canceled", end=BEFORE, created=1, name="sub_old")
    new = subscription("active", created=2, name="sub_new")
    odd = subscription("odd", created=3, name="sub_odd")
    for listed in ([old, new, odd], [odd, new, old], [new, odd, old]):
        found = standing(listed, SOLD, NOW)
        assert (found.verdict, found.subscription_id) == ("has", "sub_new")


def test_paying_twice_is_told_to_the_operator() -> None:
    twice = [subscription("active"), subscription("active", name="sub_2", created=2)]
    assert "twice" in standing(twice, SOLD, NOW).alerts[0]


def test_what_billing_did_not_give_it_does_not_take() -> None:
    nothing = standing([], SOLD, NOW)
    assert decide(nothing, None, "own", "free") == ("own", None)
    assert decide(nothing, "paid", "paid", "free") == ("free", None)
    paid = standing([subscription("active")], SOLD, NOW)
    assert decide(paid, None, "free", "free") == ("paid", "paid")
