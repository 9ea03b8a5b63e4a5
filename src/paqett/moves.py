"""A change of plan, and the readings that follow it from tier to tier.

The rule for moves: the tier flips in one transaction that waits for every flush in flight (the
directory's lock). From then on new readings go to the new tier; reads take both; the mover carries
the history over, oldest first, each slice under the account's exclusive lock, while a flush of
that account holds the same lock shared and skips what the other tier holds. A slice is a stretch of
time with about 10,000 readings at most, so that no flush waits for long.

Nobody puts readings into the tier that is left, so how far a move has come is one time, kept in
`move`. Retention of that tier spares what the move still owes (`settle_retention`).
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from paqett import grafana, notices, pauses
from paqett.db import Connection
from paqett.errors import Invalid, NotFound
from paqett.move_slices import Slice, carry, make_chunks, oldest_reading
from paqett.plans import Plan
from paqett.retention import TierState
from paqett.sqlfiles import query

GRACE = timedelta(days=14)  # product contract §5: downgrade
SLICE = timedelta(days=1)
LONG = timedelta(hours=1)
"""A move that takes longer than this is told to the operator."""
_REMIND = (7, 1)  # days before a grace ends


async def set_plan(
    conn: Connection, account_id: int, plan: Plan, now: datetime, *, tell: bool = True
) -> datetime | None:
    """Give the account `plan`.

    Its limits hold at once: devices and alert rules it has no room for are paused, those it has
    room for go on. A tier with at least as long a retention is joined at once, or when an earlier
    move is done. A shorter one is joined after the grace, since readings end with it: that time is
    returned, and told unless the caller does. A plan without Grafana ends the SQL login. Raises
    `NotFound`, and `Invalid` for a plan without a policy file.
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
    due = _due(account, plan, tiers, now)
    await conn.execute(query("set_plan"), {"account": account_id, "plan": plan.name, "due": due})
    if not plan.grafana:
        await grafana.drop(conn, account_id)
    if due is not None and due <= now and account["moving_from"] is None:
        await _flip(conn, account, plan.tier, tiers, now)
        due = None
    await pauses.fit_plan(conn, account_id, plan, now)
    if due is None or due <= now:
        return None
    if tell and due != account["tier_due_at"]:
        await _tell(conn, account_id, "plan_smaller", plan, tiers, due)
    return due


def _due(
    account: dict[str, Any], plan: Plan, tiers: dict[str, timedelta], now: datetime
) -> datetime | None:
    """When the readings follow; None where they stand in the plan's tier already."""
    if plan.tier == account["tier"]:
        return None
    if tiers[plan.tier] >= tiers[account["tier"]]:
        return now
    before: datetime | None = account["tier_due_at"]
    if account["plan"] == plan.name and before is not None:
        return before  # given once more: the grace is not begun anew
    return now + GRACE


async def _tell(
    conn: Connection, account_id: int, event: str, plan: Plan, tiers: dict[str, timedelta],
    due: datetime,
) -> None:  # fmt: skip
    await notices.notify(
        conn, account_id, event, plan=plan.name, days=tiers[plan.tier].days, erased_at=due
    )


async def remind(conn: Connection, plans: dict[str, Plan], now: datetime) -> int:
    """Tell whose older readings are erased in 7 days, and in 1; how many were told."""
    tiers = await tier_retentions(conn)
    told = 0
    for days in sorted(_REMIND):
        values = {"now": now, "before": now + timedelta(days=days), "days": days}
        rows = await (await conn.execute(query("unscoped_remind_of_grace"), values)).fetchall()
        for row in rows:
            plan = plans.get(row["plan"])
            if plan is not None and plan.tier in tiers:
                due = row["tier_due_at"]
                await _tell(conn, row["id"], "readings_erased_soon", plan, tiers, due)
                told += 1
    return told


async def apply_due(
    conn: Connection, account_id: int, plans: dict[str, Plan], now: datetime
) -> None:
    """The grace is over: the account joins its plan's tier, once no other move is open.

    Raises `Invalid` for a plan that is no longer in plans.toml.
    """
    account = await _lock(conn, account_id)
    if account["tier_due_at"] is None or account["tier_due_at"] > now or account["erasing"]:
        return
    plan = plans.get(account["plan"])
    if plan is None:
        raise Invalid(f"plans.toml has no plan {account['plan']}", field="plan")
    if account["tier"] == plan.tier:
        await conn.execute(query("forget_due"), {"account": account_id})
    elif account["moving_from"] is None:
        await _flip(conn, account, plan.tier, await tier_retentions(conn), now)


async def _flip(
    conn: Connection, account: dict[str, Any], tier: str, tiers: dict[str, timedelta], now: datetime
) -> None:
    await conn.execute(
        query("set_tier"),
        {
            "account": account["id"],
            "tier": tier,
            "from": account["tier"],
            "readable_from": now - min(tiers[account["tier"]], tiers[tier]),
        },
    )
    await _note_move(conn, account["id"], now)
    await conn.execute(query("unscoped_settle_retention"), {"tier": account["tier"]})


async def _note_move(conn: Connection, account_id: int, now: datetime) -> None:
    await conn.execute(query("note_move"), {"account": account_id, "now": now})


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
    """Carry the oldest readings that are left over; true while there may be more.

    One transaction of the caller's, and one retry does no harm: a slice and how far the move has
    come are written together. What is no longer readable is erased. The first slice of a move
    makes the chunks of the tier it leads to: a query that is planned before a chunk is there would
    not look into it.
    """
    await _note_move(conn, account_id, now)
    own = {"account": account_id}
    found = await (await conn.execute(query("await_chunks"), own)).fetchone()
    await conn.execute(query("lock_move"), own)
    row = await (
        await conn.execute(query("next_slice"), {"account": account_id, "now": now})
    ).fetchone()
    if row is None or row["carried_to"] >= row["until"]:
        return False
    piece = msgspec.convert(row, Slice)
    if found is None or not found["prepared"]:
        await make_chunks(conn, account_id, piece)
    else:
        await carry(conn, account_id, piece)
    return True


async def close_move(conn: Connection, account_id: int) -> bool:
    """End a move that has carried everything; false where readings are left.

    The directory's lock makes every flush that still saw the move open commit first.
    """
    account = await _lock(conn, account_id)
    source = account["moving_from"]
    if source is None:
        return True
    move = await (await conn.execute(query("open_move"), {"account": account_id})).fetchone()
    if move is None or move["carried_to"] < move["until"]:
        return False
    left = await oldest_reading(conn, source, account_id, move["series"], move["until"], None)
    if left is not None:  # a clock was wrong when it was stored
        values = {"account": account_id, "until": left + SLICE}
        await conn.execute(query("prolong_move"), values)
        return False
    await conn.execute(query("close_move"), {"account": account_id})
    await conn.execute(query("forget_move"), {"account": account_id})
    await conn.execute(query("unscoped_settle_retention"), {"tier": source})
    return True


async def settle_retention(conn: Connection, state: TierState) -> None:
    """Policies that rest go on where the account whose move they rested for was erased."""
    if state.retention_by == "timescaledb":
        await conn.execute(query("lock_directory"))
        await conn.execute(query("unscoped_settle_retention"), {"tier": state.name})


async def report_long(conn: Connection, now: datetime) -> list[int]:
    """Accounts whose move takes longer than `LONG`, each once: an operator is to hear of them."""
    values = {"now": now, "since": now - LONG}
    rows = await (await conn.execute(query("unscoped_report_long_moves"), values)).fetchall()
    return [row["account_id"] for row in rows]
