"""What we ask of Stripe, through its SDK, and what it answers, as structs of ours.

Neither keys nor what people typed stand in the errors raised here: they carry Stripe's own code
and nothing else.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from paqett import log, settings
from paqett.billing.problems import BadSignature, StripeUnavailable
from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError, PaqettError

_logger = log.get("billing")
_RETRIES = 2
_PRICES_KEPT_S = 600.0
_PRICES_FAILED_KEPT_S = 30.0
_PRICES_PATIENCE_S = 3.0


class CustomerGoneError(PaqettError):
    """The customer was deleted at Stripe."""


class Recurring(msgspec.Struct, frozen=True):
    """How often a price is paid."""

    interval: str
    interval_count: int = 1


class Price(msgspec.Struct, frozen=True):
    """`unit_amount` in the currency's smallest unit; None where it is tiered."""

    id: str
    currency: str
    lookup_key: str | None = None
    unit_amount: int | None = None
    recurring: Recurring | None = None


class Item(msgspec.Struct, frozen=True):
    """What a subscription is for; its period (s since 1970) stands here, not on the whole."""

    price: Price
    current_period_end: int


class Items(msgspec.Struct, frozen=True):
    """Stripe's list."""

    data: list[Item]


class Cancellation(msgspec.Struct, frozen=True):
    """Why a subscription ends: cancellation_requested, payment_failed, payment_disputed."""

    reason: str | None = None


class Invoice(msgspec.Struct, frozen=True):
    """draft, open, paid, uncollectible or void."""

    status: str | None = None


class Subscription(msgspec.Struct, frozen=True):
    """A subscription as Stripe has it at this moment; times in s since 1970."""

    id: str
    status: str
    created: int
    items: Items
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    metadata: dict[str, str] = {}
    cancellation_details: Cancellation | None = None
    latest_invoice: Invoice | str | None = None


class Session(msgspec.Struct, frozen=True):
    """A page of Stripe's: Checkout or portal."""

    id: str
    url: str | None = None


def check(own: settings.Stripe) -> None:
    """Raises `ConfigurationError` for settings that could not work, or would not be safe."""
    place = urlsplit(own.api_base)
    if place.scheme != "https" and place.hostname not in LOOPBACK:
        raise ConfigurationError("stripe.api_base is https, but on this machine")


def check_receiving(own: settings.Stripe) -> None:
    """Raises `ConfigurationError` for settings with which nobody's webhooks could be told apart.

    The API alone receives them, so no other process needs their secret.
    """
    if not own.webhook_secret:
        raise ConfigurationError("stripe.webhook_secret is not set, and stripe.secret_key is")
    if own.webhook_tolerance_s <= 0:
        raise ConfigurationError("stripe.webhook_tolerance_s is a number of seconds above 0")


class Stripe:
    """One client for a process; close it."""

    def __init__(self, own: settings.Stripe) -> None:
        """Raises `ConfigurationError`."""
        check(own)
        import stripe  # noqa: PLC0415 - 0.2 s and 3 MB for those alone who sell plans

        logging.getLogger("stripe").setLevel(logging.WARNING)  # below that it logs what it sends
        stripe.enable_telemetry = False  # this machine's name and figures are nobody's business
        self._sdk = stripe
        self._own = own
        self._http = stripe.HTTPXClient(timeout=own.timeout_s)
        self._api = stripe.StripeClient(
            own.secret_key,
            http_client=self._http,
            base_addresses={"api": own.api_base.rstrip("/")},
            max_network_retries=_RETRIES,
        ).v1
        self._prices: dict[str, Price] = {}
        self._prices_until = 0.0

    async def close(self) -> None:
        """Its connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def create_customer(self, account_id: int, email: str, key: str) -> str:
        """The id of a new customer, or of the one that `key` made before."""
        made = await self._ask(
            self._api.customers.create_async(
                {"email": email, "metadata": {"account": str(account_id)}},
                {"idempotency_key": f"customer-{key}"},
            )
        )
        return str(made["id"])

    async def update_customer(self, customer: str, email: str) -> None:
        """The account's address is another; bills go there. Raises `CustomerGoneError`."""
        await self._ask(self._api.customers.update_async(customer, {"email": email}))

    async def delete_customer(self, customer: str) -> None:
        """Gone with its subscriptions, which are cancelled; one that is gone already is fine."""
        try:
            await self._ask(self._api.customers.delete_async(customer))
        except CustomerGoneError:
            return

    async def subscriptions(self, customer: str) -> list[Subscription]:
        """Every one the customer ever had. Raises `CustomerGoneError`."""
        found = await self._ask(
            self._api.subscriptions.list_async(
                {
                    "customer": customer, "status": "all", "limit": 100,
                    "expand": ["data.latest_invoice"],
                }
            )
        )  # fmt: skip
        return msgspec.convert(found["data"], list[Subscription])

    async def set_ending(self, subscription: str, *, ending: bool) -> None:
        """At the period's end, or not after all; one that is gone has ended."""
        with suppress(CustomerGoneError):
            await self._ask(
                self._api.subscriptions.update_async(subscription, {"cancel_at_period_end": ending})
            )

    async def open_checkouts(self, customer: str) -> list[Session]:
        """Checkouts that can still be paid. Raises `CustomerGoneError`."""
        found = await self._ask(
            self._api.checkout.sessions.list_async({"customer": customer, "status": "open"})
        )
        return msgspec.convert(found["data"], list[Session])

    async def price(self, lookup_key: str) -> Price | None:
        """The active recurring price with this key."""
        return (await self._find_prices([lookup_key])).get(lookup_key)

    async def shown_prices(self, lookup_keys: Iterable[str]) -> Mapping[str, Price]:
        """Prices to show, at most 10 minutes old; none where Stripe does not answer at once."""
        if time.monotonic() >= self._prices_until:
            kept_s = _PRICES_KEPT_S
            try:
                async with asyncio.timeout(_PRICES_PATIENCE_S):
                    self._prices = await self._find_prices(sorted(set(lookup_keys)))
            except (StripeUnavailable, TimeoutError):
                kept_s = _PRICES_FAILED_KEPT_S
            self._prices_until = time.monotonic() + kept_s
        return self._prices

    async def _find_prices(self, lookup_keys: list[str]) -> dict[str, Price]:
        if not lookup_keys:
            return {}
        found = await self._ask(
            self._api.prices.list_async(
                {"lookup_keys": lookup_keys, "active": True, "type": "recurring", "limit": 100}
            )
        )
        prices = msgspec.convert(found["data"], list[Price])
        return {price.lookup_key: price for price in prices if price.lookup_key is not None}

    async def create_checkout(
        self, customer: str, price: str, *, account_id: int, plan: str, key: str,
        success_url: str, cancel_url: str, expires_at: int,
    ) -> Session:  # fmt: skip
        """A Checkout for one subscription; `key` makes one at most. Raises `CustomerGoneError`."""
        made = await self._ask(
            self._api.checkout.sessions.create_async(
                {
                    "mode": "subscription",
                    "customer": customer,
                    "client_reference_id": str(account_id),
                    "line_items": [{"price": price, "quantity": 1}],
                    "subscription_data": {"metadata": {"account": str(account_id), "plan": plan}},
                    "success_url": success_url,
                    "cancel_url": cancel_url,
                    "expires_at": expires_at,
                },
                {"idempotency_key": f"checkout-{key}"},
            )
        )
        return msgspec.convert(made, Session)

    async def create_portal(self, customer: str, return_url: str) -> Session:
        """Where the customer looks after the subscription. Raises `CustomerGoneError`."""
        made = await self._ask(
            self._api.billing_portal.sessions.create_async(
                {"customer": customer, "return_url": return_url}
            )
        )
        return msgspec.convert(made, Session)

    async def _ask(self, call: Coroutine[Any, Any, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = (await call).to_dict()
        except (self._sdk.APIConnectionError, self._sdk.RateLimitError):
            raise StripeUnavailable from None
        except self._sdk.StripeError as error:
            about = getattr(error, "param", None)
            if error.code == "resource_missing" and about in ("customer", "id"):
                raise CustomerGoneError("the customer was deleted at Stripe") from None
            kind = type(error).__name__
            _logger.error("stripe refused", error=kind, code=error.code, status=error.http_status)
            raise StripeUnavailable(f"Stripe refused ({kind}, {error.code}).") from None
        return answer

    def verify(self, body: bytes, header: str) -> None:
        """Raises `BadSignature` for what Stripe did not sign, or signed too long ago."""
        try:
            # the comparison would raise; without a secret anybody could sign
            if not header.isascii() or not self._own.webhook_secret:
                raise BadSignature
            self._sdk.WebhookSignature.verify_header(
                body, header, self._own.webhook_secret, self._own.webhook_tolerance_s
            )
        except (self._sdk.SignatureVerificationError, UnicodeDecodeError):
            raise BadSignature from None


def sign(body: str, secret: str, at: int) -> str:
    """The header with which the fake signs its webhooks, as Stripe does; `at` in s since 1970."""
    import stripe  # noqa: PLC0415 - as above

    header: str = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return header
