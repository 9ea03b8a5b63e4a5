"""Asking Stripe and doing what it says: whoever calls it, and how often, the outcome is Stripe's.

A webhook, the reconciliation and a click all end here, one at a time for an account.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from paqett import jobs, moves, notices, pauses
from paqett.billing import mapping
from paqett.billing.client import CustomerGoneError, Stripe, Subscription
from paqett.billing.mapping import Standing
from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query

# reconciled once a day; within minutes after a Checkout, and where a period has ended
_DAILY, _SOON, _RECENT = timedelta(days=1), timedelta(minutes=5), timedelta(hours=2)
_AT_ONCE = 200


class Known(msgspec.Struct, frozen=True):
    """What is kept of an account at Stripe; `granted` is the plan that billing gave it."""

    customer_key: str
    customer_id: str | None = None
    subscription_id: str | None = None
    status: str | None = None
    plan: str | None = None
    period_end: datetime | None = None
    ends_at: datetime | None = None
    granted: str | None = None
    checkout_key: str | None = None
    checkout_at: datetime | None = None


def sold(plans: Mapping[str, Plan]) -> dict[str, str]:
    """Plans that can be bought, by the lookup keys of their prices."""
    return {plan.stripe_lookup_key: name for name, plan in plans.items() if plan.stripe_lookup_key}


async def known(conn: Connection, account_id: int) -> Known | None:
    """What Stripe said the last time; None where the account never wanted to buy anything."""
    row = await (await conn.execute(query("subscription"), {"account": account_id})).fetchone()
    return None if row is None else msgspec.convert(row, Known)


async def defer(conn: Connection, account_id: int) -> None:
    """Write the job that syncs the account in the caller's transaction.

    Without a lock of the queue's: a job that waits for its next attempt would hold up younger ones.
    """
    await jobs.defer(conn, "sync_subscription", account_id=account_id)


async def sync(
    conn: Connection, stripe: Stripe, account_id: int, plans: Mapping[str, Plan], smallest: Plan,
    now: datetime,
) -> tuple[str, ...]:  # fmt: skip
    """Make the account what Stripe says; returns what the operator must hear of.

    The lock is held from before Stripe is asked until the commit, so that an older answer never
    comes after a newer one. `smallest` is the plan of those who have nothing there. Raises
    `StripeUnavailable`.
    """
    await conn.execute(query("lock_billing"), {"account": account_id})
    before = await known(conn, account_id)
    if before is None or before.customer_id is None:
        return ()
    await _carry_address(conn, stripe, account_id, before.customer_id)
    found = await _found(conn, stripe, account_id, before.customer_id)
    after = mapping.standing(found, sold(plans), now)
    row = await (await conn.execute(query("plan_of"), {"account": account_id})).fetchone()
    if row is None:
        return ()
    wanted, granted = decide(after, before.granted, row["plan"], smallest.name)
    plan = plans.get(wanted)
    if wanted != row["plan"] and plan is not None:
        await moves.set_plan(conn, account_id, plan, now, tell=False)
    elif plan is not None:
        await pauses.fit_plan(conn, account_id, plan, now)
    await _save(conn, account_id, after, granted, now)
    await _tell(conn, account_id, before, after, granted, wanted)
    return after.alerts


def decide(
    after: Standing, granted: str | None, current: str, smallest: str
) -> tuple[str, str | None]:
    """The plan the account is to be on, and the one that billing gives it.

    What billing did not give it does not take away: an operator may have set the plan.
    """
    if after.verdict == "keep":
        return current, granted
    if after.verdict == "has" and after.plan is not None:
        return after.plan, after.plan
    return (current if granted is None else smallest), None


async def _carry_address(conn: Connection, stripe: Stripe, account_id: int, customer: str) -> None:
    """The customer's address follows the account's; one that changes meanwhile is carried later."""
    values = {"account": account_id}
    row = await (await conn.execute(query("stale_customer"), values)).fetchone()
    if row is None:
        return
    with suppress(CustomerGoneError):
        await stripe.update_customer(customer, row["email"])
    await conn.execute(query("note_customer_carried"), {**values, "since": row["stale_since"]})


async def _found(
    conn: Connection, stripe: Stripe, account_id: int, customer: str
) -> list[Subscription]:
    try:
        return await stripe.subscriptions(customer)
    except CustomerGoneError:
        await forget_customer(conn, account_id, customer)
        return []


async def forget_customer(conn: Connection, account_id: int, customer: str) -> None:
    """It was deleted at Stripe; the next one must not be the answer to the same key."""
    values = {"account": account_id, "customer": customer, "customer_key": new_key()}
    await conn.execute(query("forget_customer"), values)


def new_key() -> str:
    """Random, so that no other installation on the same Stripe account has the same."""
    return secrets.token_hex(12)


async def _save(
    conn: Connection, account_id: int, after: Standing, granted: str | None, now: datetime
) -> None:
    values = {
        "account": account_id,
        "subscription_id": after.subscription_id,
        "status": after.status,
        "plan": after.plan,
        "period_end": after.period_end,
        "ends_at": after.ends_at,
        "granted": granted,
        "now": now,
    }
    await conn.execute(query("save_subscription"), values)


async def _tell(
    conn: Connection, account_id: int, before: Known, after: Standing, granted: str | None, on: str
) -> None:
    for event in changes(before, after, granted):
        data: dict[str, object] = {"plan": granted or before.granted}
        if event == "downgrade_ahead":
            data["ends_at"] = after.ends_at
        elif event == "subscription_ended":
            values = {"account": account_id}
            row = await (await conn.execute(query("plan_of"), values)).fetchone()
            data |= {"now_on": on, "erased_at": row and row["tier_due_at"]}
        await notices.notify(conn, account_id, event, **data)


def changes(before: Known, after: Standing, granted: str | None) -> list[str]:
    """The events a person is told of, by what was known before."""
    if granted is None:
        return [] if before.granted is None else ["subscription_ended"]
    told = [] if before.granted == granted else ["subscription_started"]
    if after.status == "past_due" and before.status != "past_due":
        told.append("payment_failed")
    if after.ends_at is not None and after.ends_at != before.ends_at:
        told.append("downgrade_ahead")
    if after.ends_at is None and before.ends_at is not None and before.granted is not None:
        told.append("downgrade_called_off")
    return told


async def claim_due(conn: Connection, now: datetime) -> int:
    """Write the jobs of accounts to ask Stripe about anew; how many.

    Webhooks may be lost: so everybody once a day, and every 5 minutes who began a Checkout in the
    last 2 hours, whose period has ended, or whose address is another.
    """
    values = {
        "now": now,
        "day": now - _DAILY,
        "soon": now - _SOON,
        "recent": now - _RECENT,
        "limit": _AT_ONCE,
    }
    rows = await (await conn.execute(query("unscoped_claim_reconciliations"), values)).fetchall()
    for row in rows:
        await defer(conn, row["account_id"])
    return len(rows)


async def follow_deletion(conn: Connection, stripe: Stripe, account_id: int) -> None:
    """Set the subscription of a closing account to end, or let it go on once that is undone.

    What its person had set to end before stays so. Raises `StripeUnavailable`.
    """
    await conn.execute(query("lock_billing"), {"account": account_id})
    values: dict[str, object] = {"account": account_id}
    row = await (await conn.execute(query("ending_of"), values)).fetchone()
    if row is None or row["customer_id"] is None:
        return
    if not row["closing"]:
        if row["ended"] is not None:
            await stripe.set_ending(row["ended"], ending=False)
            await conn.execute(query("note_ending"), {**values, "subscription": None})
        return
    for one in await _found(conn, stripe, account_id, row["customer_id"]):
        if (
            one.status not in mapping.OVER
            and not one.cancel_at_period_end
            and one.cancel_at is None
        ):
            await stripe.set_ending(one.id, ending=True)
            await conn.execute(query("note_ending"), {**values, "subscription": one.id})
