"""To Stripe's pages: Checkout, where a plan is bought, and the portal, where it is looked after.

Stripe is asked between two transactions, never inside one. A reservation in the first keeps a
second click out; it lapses where the process that made it was killed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta

import msgspec

from paqett.accounts import Account
from paqett.billing import sync
from paqett.billing.client import CustomerGoneError, Session, Stripe
from paqett.billing.mapping import OVER
from paqett.billing.problems import (
    CheckoutOpen,
    NothingToManage,
    PriceMissing,
    StripeUnavailable,
    SubscriptionLive,
)
from paqett.db import Connection
from paqett.errors import Conflict, Invalid
from paqett.plans import Plan
from paqett.sqlfiles import query

_PATIENCE_S = 45.0
_LAPSES = timedelta(seconds=60)  # longer than anybody who holds it is patient
_OPEN_FOR = timedelta(hours=1)  # Stripe allows 30 minutes at least
Transaction = Callable[[], AbstractAsyncContextManager[Connection]]


class Place(msgspec.Struct, frozen=True):
    """Where people come back to from Stripe's pages."""

    done: str
    cancelled: str
    portal: str


def places(public_url: str) -> Place:
    """On our own pages."""
    page = f"{public_url}/settings/plan"
    return Place(f"{page}?checkout=done", f"{page}?checkout=cancelled", page)


async def checkout(
    transaction: Transaction, stripe: Stripe, account: Account, plan: Plan, place: Place,
    now: datetime,
) -> str:  # fmt: skip
    """The address of a new Checkout of `plan`.

    `transaction` opens one each time. Raises `Invalid` for a plan that is not sold, `Conflict` for
    the one the account has, `CheckoutOpen`, `SubscriptionLive`, `PriceMissing` and
    `StripeUnavailable`.
    """
    if plan.stripe_lookup_key is None:
        raise Invalid(f"The plan {plan.name} is not for sale.", field="plan")
    if plan.name == account.plan:
        raise Conflict(f"The account is on the plan {plan.name} already.")
    async with _reserved(transaction, account.id, now) as (key, customer_key, customer):
        try:
            async with asyncio.timeout(_PATIENCE_S):
                made = _Making(transaction, stripe, account, plan, place, now)
                return await made.make(key, customer_key, customer)
        except TimeoutError:
            raise StripeUnavailable from None


@asynccontextmanager
async def _reserved(
    transaction: Transaction, account_id: int, now: datetime
) -> AsyncIterator[tuple[str, str, str | None]]:
    key = sync.new_key()
    values = {
        "account": account_id, "key": key, "customer_key": sync.new_key(), "now": now,
        "lapsed": now - _LAPSES,
    }  # fmt: skip
    async with transaction() as conn:
        row = await (await conn.execute(query("reserve_checkout"), values)).fetchone()
    if row is None:
        raise CheckoutOpen
    try:
        yield key, row["customer_key"], row["customer_id"]
    finally:
        async with transaction() as conn:
            await conn.execute(query("release_checkout"), {"account": account_id, "key": key})


class _Making:
    """One Checkout being made."""

    def __init__(
        self, transaction: Transaction, stripe: Stripe, account: Account, plan: Plan,
        place: Place, now: datetime,
    ) -> None:  # fmt: skip
        self._transaction, self._stripe, self._account = transaction, stripe, account
        self._plan, self._place, self._now = plan, place, now

    async def make(self, key: str, customer_key: str, customer: str | None) -> str:
        """Its address; a customer that was deleted at Stripe is replaced once."""
        if customer is not None:
            try:
                return await self._sell(customer, key)
            except CustomerGoneError:
                async with self._transaction() as conn:
                    await sync.forget_customer(conn, self._account.id, customer)
                    row = await sync.known(conn, self._account.id)
                customer_key = row.customer_key if row else customer_key
        made = await self._stripe.create_customer(
            self._account.id, self._account.email, customer_key
        )
        # kept before anything is sold, so that webhooks find the account
        async with self._transaction() as conn:
            values = {
                "account": self._account.id, "customer": made, "email": self._account.email,
                "now": self._now,
            }  # fmt: skip
            await conn.execute(query("keep_customer"), values)
        try:
            return await self._sell(made, f"{key}-{customer_key}")
        except CustomerGoneError:
            raise StripeUnavailable from None

    async def _sell(self, customer: str, key: str) -> str:
        # Checkouts first: one that is paid this moment is seen here or among the subscriptions
        await self._refuse_second(customer)
        lookup_key = str(self._plan.stripe_lookup_key)
        price = await self._stripe.price(lookup_key)
        if price is None:
            raise PriceMissing(self._plan.name, lookup_key)
        made = await self._stripe.create_checkout(
            customer, price.id, account_id=self._account.id, plan=self._plan.name, key=key,
            success_url=self._place.done, cancel_url=self._place.cancelled,
            expires_at=int((self._now + _OPEN_FOR).timestamp()),
        )  # fmt: skip
        return _url(made)

    async def _refuse_second(self, customer: str) -> None:
        for one in await self._stripe.open_checkouts(customer):
            raise CheckoutOpen(one.url)
        for subscription in await self._stripe.subscriptions(customer):
            if subscription.status not in OVER:
                async with self._transaction() as conn:  # its webhook may be lost
                    await sync.defer(conn, self._account.id)
                raise SubscriptionLive


def _url(session: Session) -> str:
    if session.url is None:
        raise StripeUnavailable("Stripe gave no address.")
    return session.url


async def portal(transaction: Transaction, stripe: Stripe, account_id: int, place: Place) -> str:
    """The address of Stripe's portal for the account.

    Raises `NothingToManage` before the first Checkout, and `StripeUnavailable`.
    """
    async with transaction() as conn:
        known = await sync.known(conn, account_id)
    if known is None or known.customer_id is None:
        raise NothingToManage
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return _url(await stripe.create_portal(known.customer_id, place.portal))
    except TimeoutError:
        raise StripeUnavailable from None
    except CustomerGoneError:
        async with transaction() as conn:
            await sync.defer(conn, account_id)
        raise NothingToManage from None
