"""From what Stripe says to what the account has: pure functions of that alone.

Which webhook came first, how often, or not at all makes no difference: nothing here knows of any.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from paqett.billing.client import Invoice, Subscription

OVER = frozenset({"canceled", "incomplete_expired"})
"""Stripe's last states: another subscription may be begun."""
_ENTITLED = frozenset({"active", "trialing", "past_due"})
_NOT_PAID = frozenset({"unpaid", "incomplete", "incomplete_expired", "paused"})
_ASKED_FOR = (None, "cancellation_requested")

Verdict = Literal["has", "none", "keep"]


class Standing(msgspec.Struct, frozen=True):
    """What an account has from Stripe.

    verdict `has`: it has `plan`; `none`: nothing; `keep`: only a person can tell, so its plan
    stays. `alerts` are for the operator.
    """

    verdict: Verdict
    plan: str | None = None
    subscription_id: str | None = None
    status: str | None = None
    period_end: datetime | None = None
    ends_at: datetime | None = None
    alerts: tuple[str, ...] = ()


def standing(found: Sequence[Subscription], sold: Mapping[str, str], now: datetime) -> Standing:
    """Of all the subscriptions of one customer; `sold` are plans by the lookup keys of prices."""
    if not found:
        return Standing("none")
    order: tuple[Verdict, ...] = ("has", "keep", "none")
    judged = [_judge(one, sold, now) for one in found]
    ranked = sorted(
        zip(judged, found, strict=True),
        key=lambda pair: (
            order.index(pair[0].verdict),
            pair[1].status in OVER,
            -pair[1].created,
            pair[1].id,
        ),
    )
    chosen = ranked[0][0]
    alerts = [alert for one in judged for alert in one.alerts]
    if sum(one.status in _ENTITLED for one in found) > 1:
        alerts.append("more than one live subscription: it is paid for twice")
    return msgspec.structs.replace(chosen, alerts=tuple(alerts))


def _judge(one: Subscription, sold: Mapping[str, str], now: datetime) -> Standing:
    plan, end = _plan(one, sold), period_end(one)
    verdict, wrong = verdict_of(one, now), ""
    if verdict == "keep":
        wrong = f"subscription {one.id} has the unknown status {one.status}"
    elif verdict == "has" and plan is None:
        verdict, wrong = "keep", f"subscription {one.id} is for a price of no plan"
    alerts = (wrong,) if wrong else ()
    ends_at = _ends_at(one, end) if verdict == "has" else None
    return Standing(verdict, plan, one.id, one.status, end, ends_at, alerts)


def verdict_of(one: Subscription, now: datetime) -> Verdict:
    """What a subscription's status is worth.

    What was paid for lasts until its period's end, also where it was cancelled before.
    """
    if one.status in _ENTITLED:
        return "has"
    if one.status in _NOT_PAID:
        return "none"
    if one.status != "canceled":
        return "keep"
    end = period_end(one)
    return "has" if _was_paid(one) and end is not None and end > now else "none"


def _was_paid(one: Subscription) -> bool:
    details, invoice = one.cancellation_details, one.latest_invoice
    asked_for = details is None or details.reason in _ASKED_FOR
    return asked_for and (not isinstance(invoice, Invoice) or invoice.status == "paid")


def period_end(one: Subscription) -> datetime | None:
    """The latest of its items, where Stripe keeps it."""
    ends = [item.current_period_end for item in one.items.data]
    return datetime.fromtimestamp(max(ends), UTC) if ends else None


def _ends_at(one: Subscription, end: datetime | None) -> datetime | None:
    if one.cancel_at is not None and one.status != "canceled":
        return datetime.fromtimestamp(one.cancel_at, UTC)
    return end if one.cancel_at_period_end or one.status == "canceled" else None


def _plan(one: Subscription, sold: Mapping[str, str]) -> str | None:
    """By its price's key; by what we wrote on it where the key has moved on to a new price."""
    for item in one.items.data:
        if (key := item.price.lookup_key) is not None and key in sold:
            return sold[key]
    written = one.metadata.get("plan")
    return written if written in sold.values() else None
