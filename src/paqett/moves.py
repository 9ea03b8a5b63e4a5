"""A change of plan, and the readings that follow it from tier to tier.

The rule for moves: the tier flips in one transaction that waits for every flush in flight (the
directory's lock). From then on new readings go to the new tier; reads take both; the mover carries
the history over, oldest day first, each slice under the account's exclusive lock, while a flush of
that account holds the same lock shared and skips what the other tier holds.
"""

from datetime import datetime, timedelta
from typing import Any

from paqett import grafana, pauses
from paqett.db import Connection
from paqett.errors import Invalid, NotFound
from paqett.plans import Plan
from paqett.sqlfiles import query, tier_query

GRACE = timedelta(days=14)  # product contract §5: downgrade
SLICE = timedelta(days=1)


async def set_plan(conn: Connection, account_id: int, plan: Plan, now: datetime) -> datetime | None:
    """Give the account `plan`.

    Its limits hold at once: devices it has no room for are paused, those it has room for go on.
    A tier with at least as long a retention is joined at once. A shorter one is joined after the
    grace, since readings end with it: that time is returned. A plan without Grafana ends the SQL
    login. Raises `NotFound`, and `Invalid` while an earlier move is still open.
    """
    # in the order in which a new device takes them: the number of devices, then the account's row
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_device_count"), {"account": account_id})
    account = await _lock(conn, account_id)
    if account["erasing"]:
        return None
    tiers = await tier_retentions(conn)
    if plan.tier not in tiers:
        raise Invalid(f"the tier {plan.tier} of plan {plan.name} has no policy file", field="plan")
    due = None
    if plan.tier != account["tier"] and tiers[plan.tier] < tiers[account["tier"]]:
        due = now + GRACE
    await conn.execute(query("set_plan"), {"account": account_id, "plan": plan.name, "due": due})
    if not plan.grafana:
        await grafana.drop(conn, account_id)
    if plan.tier != account["tier"] and due is None:
        await _flip(conn, account, plan.tier, tiers, now)
    await pauses.fit(conn, account_id, plan.devices, now)
    return due


async def apply_due(
    conn: Connection, account_id: int, plans: dict[str, Plan], now: datetime
) -> None:
    """The grace is over: the account joins its plan's tier.

    Raises `Invalid` for a plan that is no longer in plans.toml.
    """
    account = await _lock(conn, account_id)
    if account["tier_due_at"] is None or account["tier_due_at"] > now or account["erasing"]:
        return
    plan = plans.get(account["plan"])
    if plan is None:
        raise Invalid(f"plans.toml has no plan {account['plan']}", field="plan")
    if account["tier"] != plan.tier:
        await _flip(conn, account, plan.tier, await tier_retentions(conn), now)


async def _flip(
    conn: Connection, account: dict[str, Any], tier: str, tiers: dict[str, timedelta], now: datetime
) -> None:
    if account["moving_from"] is not None:
        raise Invalid("the account's last change of plan is still moving readings", field="plan")
    await conn.execute(
        query("set_tier"),
        {
            "account": account["id"],
            "tier": tier,
            "from": account["tier"],
            "readable_from": now - min(tiers[account["tier"]], tiers[tier]),
        },
    )


async def _lock(conn: Connection, account_id: int) -> dict[str, Any]:
    # The directory's lock comes first: a flush holds it while it touches account rows.
    await conn.execute(query("lock_directory"))
    row = await (await conn.execute(query("lock_account"), {"account": account_id})).fetchone()
    if row is None:
        raise NotFound(f"There is no account {account_id}.")
    return row


async def tier_retentions(conn: Connection) -> dict[str, timedelta]:
    """Every tier and how long it keeps readings."""
    rows = await (await conn.execute(query("unscoped_tiers"))).fetchall()
    return {row["name"]: row["retention"] for row in rows}


async def move_slice(conn: Connection, account_id: int, now: datetime) -> bool:
    """Move the oldest day that is left; true while there may be more.

    One transaction of the caller's, and one retry does no harm: a slice is taken and put together.
    """
    await conn.execute(query("lock_move"), {"account": account_id})
    account = await (await conn.execute(query("lock_account"), {"account": account_id})).fetchone()
    if account is None or account["moving_from"] is None:
        return False
    source, target = account["moving_from"], account["tier"]
    start = await _oldest(conn, source, account_id)
    if start is None:
        return False
    tiers = await tier_retentions(conn)
    await conn.execute(query("unscoped_moving_tables"))
    await conn.execute(query("unscoped_moving_text_table"))
    for form in ("numbers", "texts"):
        span = {
            "account": account_id,
            "from": start,
            "to": start + SLICE,
            "oldest": max(now - tiers[target], account["readable_from"]),
        }
        await conn.execute(tier_query(f"take_{form}", source), span)
        await conn.execute(tier_query(f"put_{form}", target), {"account": account_id})
    return True


async def close_move(conn: Connection, account_id: int) -> bool:
    """End a move whose source is empty; false where readings are left.

    The directory's lock makes every flush that still saw the move open commit first.
    """
    account = await _lock(conn, account_id)
    source = account["moving_from"]
    if source is None:
        return True
    if await _oldest(conn, source, account_id) is not None:
        return False
    await conn.execute(query("close_move"), {"account": account_id})
    return True


async def _oldest(conn: Connection, tier: str, account_id: int) -> datetime | None:
    found = []
    for name in ("oldest_moving_number", "oldest_moving_text"):
        rows = await conn.execute(tier_query(name, tier), {"account": account_id})
        row = await rows.fetchone()
        if row and row["time"] is not None:
            found.append(row["time"])
    return min(found, default=None)
