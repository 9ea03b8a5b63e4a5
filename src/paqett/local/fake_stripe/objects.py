"""Stripe's objects as its API v1 writes them: dictionaries of JSON, as far as we read them."""

import secrets
from typing import Any

Json = dict[str, Any]
MONTH_S = 30 * 86_400


def new_id(prefix: str) -> str:
    """As Stripe's look."""
    return f"{prefix}_{secrets.token_hex(12)}"


def customer(params: Json, now: int) -> Json:
    """A customer."""
    return {
        "id": new_id("cus"),
        "object": "customer",
        "created": now,
        "email": params.get("email"),
        "livemode": False,
        "metadata": params.get("metadata", {}),
    }


def price(lookup_key: str, amount: int, now: int, currency: str = "eur") -> Json:
    """A monthly price; `amount` in cents."""
    return {
        "id": new_id("price"),
        "object": "price",
        "active": True,
        "created": now,
        "currency": currency,
        "livemode": False,
        "lookup_key": lookup_key,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        "type": "recurring",
        "unit_amount": amount,
    }


def checkout(params: Json, base_url: str, now: int) -> Json:
    """An open Checkout; what it is for is kept beside Stripe's own members."""
    made = new_id("cs_test")
    return {
        "id": made,
        "object": "checkout.session",
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "created": now,
        "customer": params["customer"],
        "expires_at": int(params.get("expires_at", now + 86_400)),
        "livemode": False,
        "mode": "subscription",
        "payment_status": "unpaid",
        "status": "open",
        "subscription": None,
        "success_url": params["success_url"],
        "url": f"{base_url}/c/pay/{made}",
    }


def portal(params: Json, base_url: str, now: int) -> Json:
    """A visit to the portal."""
    made = new_id("bps")
    return {
        "id": made,
        "object": "billing_portal.session",
        "created": now,
        "customer": params["customer"],
        "livemode": False,
        "return_url": params.get("return_url"),
        "url": f"{base_url}/p/session/{made}",
    }


def invoice(customer_id: str, subscription_id: str, amount: int, status: str, now: int) -> Json:
    """What a period costs."""
    return {
        "id": new_id("in"),
        "object": "invoice",
        "amount_due": amount,
        "created": now,
        "customer": customer_id,
        "livemode": False,
        "parent": {"subscription_details": {"subscription": subscription_id}},
        "status": status,
    }


def subscription(customer_id: str, price_paid: Json, metadata: Json, now: int) -> Json:
    """One that is active since `now`; its period stands on its item."""
    made = new_id("sub")
    item = {
        "id": new_id("si"),
        "object": "subscription_item",
        "created": now,
        "current_period_start": now,
        "current_period_end": now + MONTH_S,
        "metadata": {},
        "price": price_paid,
        "quantity": 1,
        "subscription": made,
    }
    return {
        "id": made,
        "object": "subscription",
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": price_paid["currency"],
        "customer": customer_id,
        "ended_at": None,
        "items": {"object": "list", "data": [item], "has_more": False},
        "latest_invoice": None,
        "livemode": False,
        "metadata": metadata,
        "status": "active",
    }


def listed(objects: list[Json], url: str) -> Json:
    """Stripe's list: all of it on one page."""
    return {"object": "list", "data": objects, "has_more": False, "url": url}


def error(kind: str, message: str, code: str | None = None, param: str | None = None) -> Json:
    """Stripe's error."""
    told = {"type": kind, "message": message, "code": code, "param": param}
    return {"error": {name: value for name, value in told.items() if value is not None}}
