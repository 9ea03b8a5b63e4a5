"""What this Stripe knows, and what people and time do to it. Each change emits Stripe's events."""

import copy
import time
from collections.abc import Callable
from typing import Any

from paqett.local.fake_stripe import objects
from paqett.local.fake_stripe.objects import MONTH_S, Json

_API_VERSION = "2026-10-28.endive"


class FakeStripe:
    """All of it, in memory; `clock` gives s since 1970, `on_event` is told of each event."""

    def __init__(
        self, base_url: str, clock: Callable[[], float] = time.time,
        on_event: Callable[[Json], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.base_url, self._clock, self.on_event = base_url, clock, on_event
        self.customers: dict[str, Json] = {}
        self.prices: dict[str, Json] = {}
        self.checkouts: dict[str, Json] = {}
        self.portals: dict[str, Json] = {}
        self.subscriptions: dict[str, Json] = {}
        self.invoices: dict[str, Json] = {}
        self.events: list[Json] = []
        # what a Checkout is for: its price and its subscription's metadata
        self.orders: dict[str, Json] = {}
        # idempotency keys: what was asked, and how it was answered
        self.answers: dict[str, list[Any]] = {}

    _KEPT = (
        "customers", "prices", "checkouts", "portals", "subscriptions", "invoices", "orders",
        "answers",
    )  # fmt: skip

    def dump(self) -> Json:
        """What a restart must not forget."""
        return {name: getattr(self, name) for name in self._KEPT}

    def restore(self, dumped: Json) -> None:
        """Take up what `dump` gave."""
        for name in self._KEPT:
            setattr(self, name, dumped.get(name, {}))

    def now(self) -> int:
        """In s since 1970."""
        return int(self._clock())

    def emit(self, kind: str, about: Json) -> Json:
        """An event with its object as it is at this moment."""
        event = {
            "id": objects.new_id("evt"),
            "object": "event",
            "api_version": _API_VERSION,
            "created": self.now(),
            "data": {"object": copy.deepcopy(about)},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        self.events.append(event)
        self.on_event(event)
        return event

    def add_price(self, lookup_key: str, amount: int) -> Json:
        """A new price takes the lookup key over from the one that had it."""
        for old in self.prices.values():
            if old["lookup_key"] == lookup_key:
                old["lookup_key"] = None
        made = objects.price(lookup_key, amount, self.now())
        self.prices[made["id"]] = made
        return made

    def expire_checkouts(self) -> None:
        """Those whose time is over; called before anything looks at them."""
        for session in self.checkouts.values():
            if session["status"] == "open" and session["expires_at"] <= self.now():
                session |= {"status": "expired", "url": None}
                self.emit("checkout.session.expired", session)

    def pay(self, checkout_id: str, *, declined: bool = False) -> Json | None:
        """Somebody pays a Checkout: its subscription, or None where the card is declined."""
        self.expire_checkouts()
        session = self.checkouts[checkout_id]
        if session["status"] != "open" or declined:
            return None
        order, now = self.orders[checkout_id], self.now()
        paid_for = self.prices[order["price"]]
        made = objects.subscription(session["customer"], paid_for, order["metadata"], now)
        self.subscriptions[made["id"]] = made
        session |= {
            "status": "complete", "payment_status": "paid", "subscription": made["id"], "url": None,
        }  # fmt: skip
        bill = self._bill(made, "paid")
        self.emit("checkout.session.completed", session)
        self.emit("customer.subscription.created", made)
        self.emit("invoice.paid", bill)
        return made

    def _bill(self, subscription: Json, status: str) -> Json:
        amount = subscription["items"]["data"][0]["price"]["unit_amount"]
        made = objects.invoice(
            subscription["customer"], subscription["id"], amount, status, self.now()
        )
        self.invoices[made["id"]] = made
        subscription["latest_invoice"] = made["id"]
        return made

    def renew(self, subscription_id: str, *, declined: bool = False) -> None:
        """The next period begins; where the card is declined the subscription is past due."""
        one = self.subscriptions[subscription_id]
        for item in one["items"]["data"]:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] += MONTH_S
        bill = self._bill(one, "open" if declined else "paid")
        one["status"] = "past_due" if declined else "active"
        self.emit("invoice.payment_failed" if declined else "invoice.paid", bill)
        self.emit("customer.subscription.updated", one)

    def settle(self, subscription_id: str) -> None:
        """The open invoice is paid after all."""
        one = self.subscriptions[subscription_id]
        bill = self.invoices[one["latest_invoice"]]
        bill["status"] = "paid"
        one["status"] = "active"
        self.emit("invoice.paid", bill)
        self.emit("customer.subscription.updated", one)

    def cancel_later(self, subscription_id: str) -> None:
        """At the period's end, as the portal does it."""
        one = self.subscriptions[subscription_id]
        one |= {
            "cancel_at_period_end": True, "canceled_at": self.now(),
            "cancel_at": one["items"]["data"][0]["current_period_end"],
        }  # fmt: skip
        one["cancellation_details"]["reason"] = "cancellation_requested"
        self.emit("customer.subscription.updated", one)

    def keep(self, subscription_id: str) -> None:
        """Not cancelled after all."""
        one = self.subscriptions[subscription_id]
        one |= {"cancel_at_period_end": False, "canceled_at": None, "cancel_at": None}
        one["cancellation_details"]["reason"] = None
        self.emit("customer.subscription.updated", one)

    def cancel(self, subscription_id: str, reason: str | None = "cancellation_requested") -> None:
        """At once; `payment_failed` after the last try to be paid."""
        one, now = self.subscriptions[subscription_id], self.now()
        one |= {"status": "canceled", "canceled_at": now, "ended_at": now}
        one["cancellation_details"]["reason"] = reason
        self.emit("customer.subscription.deleted", one)

    def end_period(self, subscription_id: str) -> None:
        """What was cancelled for the period's end ends; the period ends this moment."""
        one = self.subscriptions[subscription_id]
        for item in one["items"]["data"]:
            item["current_period_end"] = self.now()
        self.cancel(subscription_id)

    def set_status(self, subscription_id: str, status: str) -> None:
        """Any other state: unpaid, paused, or one that nobody knows yet."""
        one = self.subscriptions[subscription_id]
        one["status"] = status
        self.emit("customer.subscription.updated", one)

    def delete_customer(self, customer_id: str) -> None:
        """With its subscriptions, which are cancelled."""
        customer = self.customers[customer_id]
        for one in list(self.subscriptions.values()):
            if one["customer"] == customer_id and one["status"] != "canceled":
                self.cancel(one["id"], None)
        customer["deleted"] = True
        self.emit("customer.deleted", customer)

    def is_customer(self, customer_id: object) -> bool:
        """Whether something can still be sold to it."""
        customer = self.customers.get(str(customer_id))
        return customer is not None and not customer.get("deleted")
