"""GET /plan: what the account's plan allows, what was bought, and what can be."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from paqett.accounts import Account
from paqett.billing import sync
from paqett.billing.client import Price, Stripe
from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query


class Cost(msgspec.Struct, frozen=True):
    """`amount` in the currency's smallest unit, each `interval_count` intervals."""

    lookup_key: str
    amount: int | None
    currency: str
    interval: str
    interval_count: int


class Offer(Plan, frozen=True, kw_only=True):
    """A plan as it is sold; `price` is None while Stripe does not tell it."""

    retention_days: int | None
    price: Cost | None


class Bought(msgspec.Struct, frozen=True):
    """The subscription as Stripe told it last; `status` is Stripe's word.

    `ends_at` is set where it was cancelled: the plan lasts until then.
    """

    status: str
    plan: str | None
    period_end: datetime | None
    ends_at: datetime | None


class Overview(Plan, frozen=True, kw_only=True):
    """The account's plan; a limit that is null is no limit. A point is one metric value.

    `retention_days` are those of the tier that takes new readings; where a smaller plan waits for
    its grace to end, `readings_follow_at` tells when. `subscription` is null where nothing was
    bought, `offers` is empty where plans are not sold.
    """

    retention_days: int | None
    readings_follow_at: datetime | None
    billing: bool
    subscription: Bought | None
    offers: list[Offer]


async def overview(
    conn: Connection, account: Account, plans: Mapping[str, Plan], prices: Mapping[str, Price],
    *, billing: bool,
) -> Overview:  # fmt: skip
    """The account's plan. `prices` by lookup key, as far as they are known."""
    days = await _retention_days(conn)
    due = await (await conn.execute(query("plan_of"), {"account": account.id})).fetchone()
    plan = plans[account.plan]
    return Overview(
        **msgspec.structs.asdict(plan),
        retention_days=days.get(account.tier),
        readings_follow_at=due["tier_due_at"] if due else None,
        billing=billing,
        subscription=await _bought(conn, account.id) if billing else None,
        offers=[_offer(one, days, prices) for one in plans.values() if billing and one.is_sold],
    )


async def offers(
    conn: Connection, plans: Mapping[str, Plan], first: Plan, prices: Mapping[str, Price],
    *, billing: bool,
) -> list[Offer]:  # fmt: skip
    """What a stranger can have: the plan everybody begins with, and those that are sold."""
    days = await _retention_days(conn)
    sold = [plan for plan in plans.values() if billing and plan.is_sold and plan != first]
    return [_offer(plan, days, prices) for plan in (first, *sold)]


async def _retention_days(conn: Connection) -> dict[str, int]:
    rows = await (await conn.execute(query("unscoped_tiers"))).fetchall()
    return {row["name"]: row["retention"].days for row in rows}


def _offer(plan: Plan, days: Mapping[str, int], prices: Mapping[str, Price]) -> Offer:
    return Offer(
        **msgspec.structs.asdict(plan),
        retention_days=days.get(plan.tier),
        price=cost(plan, prices),
    )


async def _bought(conn: Connection, account_id: int) -> Bought | None:
    known = await sync.known(conn, account_id)
    if known is None or known.status is None:
        return None
    return Bought(known.status, known.plan, known.period_end, known.ends_at)


def cost(plan: Plan, prices: Mapping[str, Price]) -> Cost | None:
    """What the plan costs, where that is known."""
    key = plan.stripe_lookup_key
    price = prices.get(key) if key else None
    if key is None or price is None or price.recurring is None:
        return None
    every = price.recurring
    return Cost(key, price.unit_amount, price.currency, every.interval, every.interval_count)


async def shown_prices(stripe: Stripe | None, plans: Mapping[str, Plan]) -> Mapping[str, Price]:
    """Of the plans that are sold. Asked before the transaction is opened."""
    return {} if stripe is None else await stripe.shown_prices(sync.sold(plans))
