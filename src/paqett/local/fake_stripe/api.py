"""The part of Stripe's API v1 that we call, checked as strictly as Stripe does."""

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from paqett.local.fake_stripe import objects
from paqett.local.fake_stripe.objects import Json, error
from paqett.local.fake_stripe.state import FakeStripe

Answer = tuple[int, Json]
_KEY = re.compile(r"[^\[\]]+|\[\]")
_MISSING = "resource_missing"


def decode(text: str) -> Json:
    """Stripe's form encoding: `a[b]=1`, `a[]=1`, `a[0][b]=1`. Lists of objects stay by number."""
    found: Json = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        place: Any = found
        *path, last = _KEY.findall(name)
        for part in path:
            place = place.setdefault(part, {})
        if last == "[]" or last.isdigit():
            place[str(len(place)) if last == "[]" else last] = value
        else:
            place[last] = value
    return found


class Api:
    """Answers requests; `secret_key` is the only key that opens."""

    def __init__(self, fake: FakeStripe, secret_key: str) -> None:
        self._fake, self._secret_key = fake, secret_key
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("POST", r"/v1/customers", self._create_customer),
            ("POST", r"/v1/customers/(\w+)", self._update_customer),
            ("DELETE", r"/v1/customers/(\w+)", self._delete_customer),
            ("GET", r"/v1/prices", self._list_prices),
            ("POST", r"/v1/checkout/sessions", self._create_checkout),
            ("GET", r"/v1/checkout/sessions", self._list_checkouts),
            ("POST", r"/v1/billing_portal/sessions", self._create_portal),
            ("GET", r"/v1/subscriptions", self._list_subscriptions),
            ("POST", r"/v1/subscriptions/(\w+)", self._update_subscription),
        ]

    def answer(self, method: str, path: str, form: str, headers: Mapping[str, str]) -> Answer:
        """The status and the body; a POST with an idempotency key is done once."""
        sent = headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(sent.encode(), self._secret_key.encode()):
            return 401, error("invalid_request_error", "Invalid API Key provided.")
        self._fake.expire_checkouts()
        for wanted, pattern, handler in self._routes:
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                return self._once(handler, found.groups(), path, form, headers)
        return 404, error("invalid_request_error", f"Unrecognized request URL ({method}: {path}).")

    def _once(
        self, handler: Callable[..., Answer], groups: tuple[str, ...], path: str, form: str,
        headers: Mapping[str, str],
    ) -> Answer:  # fmt: skip
        key = headers.get("Idempotency-Key")
        if key is None:
            return handler(*groups, decode(form))
        if key in self._fake.answers:
            asked, status, body = self._fake.answers[key]
            if asked != f"{path}?{form}":
                return 400, error(
                    "idempotency_error", "Keys for idempotent requests need the same parameters."
                )
            return status, body
        status, body = handler(*groups, decode(form))
        self._fake.answers[key] = [f"{path}?{form}", status, body]
        return status, body

    def _create_customer(self, params: Json) -> Answer:
        made = objects.customer(params, self._fake.now())
        self._fake.customers[made["id"]] = made
        self._fake.emit("customer.created", made)
        return 200, made

    def _update_customer(self, customer: str, params: Json) -> Answer:
        if not self._fake.is_customer(customer):
            return _no_such("customer", customer, "id", 404)
        made = self._fake.customers[customer]
        made |= {"email": params.get("email", made["email"])}
        self._fake.emit("customer.updated", made)
        return 200, made

    def _delete_customer(self, customer: str, _: Json) -> Answer:
        if not self._fake.is_customer(customer):
            return _no_such("customer", customer, "id", 404)
        self._fake.delete_customer(customer)
        return 200, {"id": customer, "object": "customer", "deleted": True}

    def _list_prices(self, params: Json) -> Answer:
        keys = list(params.get("lookup_keys", {}).values())
        found = [
            price
            for price in self._fake.prices.values()
            if price["active"] and price["lookup_key"] in keys
        ]
        return 200, objects.listed(found, "/v1/prices")

    def _create_checkout(self, params: Json) -> Answer:
        order = params.get("line_items", {}).get("0", {})
        price, now = order.get("price"), self._fake.now()
        if not self._fake.is_customer(params.get("customer")):
            return _no_such("customer", params.get("customer"), "customer", 400)
        if price not in self._fake.prices:
            return _no_such("price", price, "line_items[0][price]", 400)
        opens_s = int(params.get("expires_at", now + 86_400)) - now
        if params.get("mode") != "subscription" or not 1800 - 60 <= opens_s <= 86_400 + 60:
            return 400, error("invalid_request_error", "mode or expires_at is wrong.")
        if "success_url" not in params or order.get("quantity") != "1":
            return 400, error("invalid_request_error", "success_url or quantity is missing.")
        made = objects.checkout(params, self._fake.base_url, now)
        self._fake.checkouts[made["id"]] = made
        metadata = params.get("subscription_data", {}).get("metadata", {})
        self._fake.orders[made["id"]] = {"price": price, "metadata": metadata}
        return 200, dict(made)

    def _list_checkouts(self, params: Json) -> Answer:
        found = [
            session
            for session in self._fake.checkouts.values()
            if session["customer"] == params.get("customer")
            and session["status"] == params.get("status", session["status"])
        ]
        return 200, objects.listed(found, "/v1/checkout/sessions")

    def _create_portal(self, params: Json) -> Answer:
        if not self._fake.is_customer(params.get("customer")):
            return _no_such("customer", params.get("customer"), "customer", 400)
        made = objects.portal(params, self._fake.base_url, self._fake.now())
        self._fake.portals[made["id"]] = made
        return 200, made

    def _list_subscriptions(self, params: Json) -> Answer:
        if params.get("customer") not in self._fake.customers:
            return _no_such("customer", params.get("customer"), "customer", 400)
        every = params.get("status") == "all"
        expand = "data.latest_invoice" in params.get("expand", {}).values()
        found = []
        for one in reversed(self._fake.subscriptions.values()):
            if one["customer"] == params["customer"] and (every or one["status"] != "canceled"):
                bill = one["latest_invoice"]
                shown = self._fake.invoices.get(bill) if expand else bill
                found.append({**one, "latest_invoice": shown})
        return 200, objects.listed(found, "/v1/subscriptions")

    def _update_subscription(self, subscription: str, params: Json) -> Answer:
        one = self._fake.subscriptions.get(subscription)
        if one is None or one["status"] == "canceled":
            return _no_such("subscription", subscription, "id", 404)
        if set(params) != {"cancel_at_period_end"}:
            return 400, error("invalid_request_error", "Only cancel_at_period_end is known here.")
        if params["cancel_at_period_end"] == "true":
            self._fake.cancel_later(subscription)
        else:
            self._fake.keep(subscription)
        return 200, one


def _no_such(kind: str, name: object, param: str, status: int) -> Answer:
    message = f"No such {kind}: '{name}'"
    return status, error("invalid_request_error", message, _MISSING, param)
