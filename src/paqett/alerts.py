"""Alert rules of an account, and their alerts: made, listed, changed, ended.

What a rule may say is `alert_rules`'. Rules judge readings in `readings/judge`, silence and
connections in `alert_timers`.
"""

from datetime import datetime
from typing import Any

import msgspec

from paqett import lists
from paqett.accounts import Account
from paqett.alert_rules import Kind, Rule, RuleChange, RuleIn, columns_of, rule_of
from paqett.conditions import State
from paqett.db import Connection
from paqett.errors import LimitReached, NotFound
from paqett.lists import Page
from paqett.plans import Plan
from paqett.sqlfiles import query

_CONDITION = ("device_id", "metric", "operator", "threshold", "clear", "for_", "enabled")


class Alert(msgspec.Struct, frozen=True):
    """A rule that holds or held on a device.

    `since` is when the condition began, `value` what was measured then. `reason` is why it is as
    it is: threshold, no_data, offline; data_returned, online; rule_changed, rule_deleted,
    rule_paused, device_paused, metric_gone.
    """

    id: int
    rule_id: int | None
    rule_name: str
    kind: Kind
    device: str
    metric: str | None
    state: State
    since: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    value: float | None
    resolved_value: float | None
    reason: str


async def units(conn: Connection, account: Account) -> dict[int, str]:
    """What the levels of rules are measured in, by the rule's id, where the metric has a unit."""
    rows = await conn.execute(query("units_of_rules"), {"account": account.id})
    return {row["id"]: row["unit"] for row in await rows.fetchall()}


async def create(
    conn: Connection, account: Account, plan: Plan, wanted: RuleIn, now: datetime
) -> Rule:
    """Make a rule; the next flush knows it.

    Raises `Invalid`, `LimitReached`, `NotFound` for a device that is not the account's.
    """
    columns = columns_of(wanted)
    await _begin_change(conn, account, wanted.device_id)
    row = await (await conn.execute(query("count_rules"), {"account": account.id})).fetchone()
    most = plan.alert_rules
    if most is not None and row is not None and row["rules"] >= most:
        raise LimitReached(
            f"The plan {plan.name} allows {most} alert rules.",
            extra={"limit": most, "field": "alert_rules"},
        )
    values = {**columns, "account": account.id, "now": now}
    made = await (await conn.execute(query("create_rule"), values)).fetchone()
    return rule_of(made or {})


async def _begin_change(conn: Connection, account: Account, device_id: str | None) -> None:
    """The directory's lock before any other, then the account's alerts. Raises `NotFound`."""
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_rule_count"), {"account": account.id})
    if device_id is not None:
        values = {"account": account.id, "id": device_id}
        if await (await conn.execute(query("get_device"), values)).fetchone() is None:
            raise NotFound(f"There is no device {device_id}.")


async def list_rules(
    conn: Connection, account: Account, *, devices: list[str] | None, limit: int, cursor: str | None
) -> Page:
    """A page of rules in the order they were made; with `devices` those about one of these.

    Raises `Invalid` for a cursor that is not ours.
    """
    values = {
        "account": account.id, "devices": devices, "after": lists.read_id(cursor) or 0,
        "limit": limit + 1,
    }  # fmt: skip
    rows = await (await conn.execute(query("list_rules"), values)).fetchall()
    return Page([rule_of(row) for row in rows[:limit]], lists.next_id(rows, limit))


async def get(conn: Connection, account: Account, rule_id: int, devices: list[str] | None) -> Rule:
    """One rule. Raises `NotFound`, also for one that is about none of `devices`."""
    return rule_of(await _row(conn, account, rule_id, devices))


async def _row(
    conn: Connection, account: Account, rule_id: int, devices: list[str] | None
) -> dict[str, Any]:
    row = None
    if 0 < rule_id < 2**31:
        values = {"account": account.id, "rule": rule_id, "devices": devices}
        row = await (await conn.execute(query("get_rule"), values)).fetchone()
    if row is None:
        raise NotFound(f"There is no alert rule {rule_id}.")
    return row


async def update(
    conn: Connection, account: Account, rule_id: int, change: RuleChange,
    devices: list[str] | None, now: datetime,
) -> Rule:  # fmt: skip
    """Change a rule. Where its condition changes, what it held on ends, and it begins anew.

    Raises as `create` does, and `NotFound`.
    """
    given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not msgspec.UNSET}
    await _row(conn, account, rule_id, devices)
    await _begin_change(conn, account, given.get("device_id"))
    before = await _row(conn, account, rule_id, devices)
    old = rule_of(before)
    fields = {name: getattr(old, name) for name in ("name", "kind", *_CONDITION)} | given
    columns = columns_of(RuleIn(**fields))
    anew = any(getattr(old, name) != fields[name] for name in _CONDITION)
    changed = now if anew else before["changed_at"]
    await conn.execute(
        query("update_rule"),
        {**columns, "account": account.id, "rule": rule_id, "changed": changed},
    )
    if anew:
        await end_alerts(conn, account.id, rule_id, "rule_changed", now)
    return await get(conn, account, rule_id, None)


async def delete(
    conn: Connection, account: Account, rule_id: int, devices: list[str] | None, now: datetime
) -> None:
    """Delete a rule; its past alerts stay listed. Raises `NotFound`."""
    await _row(conn, account, rule_id, devices)
    await _begin_change(conn, account, None)
    await end_alerts(conn, account.id, rule_id, "rule_deleted", now)
    values = {"account": account.id, "rule": rule_id}
    gone = await (await conn.execute(query("delete_rule"), values)).fetchone()
    if gone is not None and gone["paused_at"] is None:
        await conn.execute(query("resume_oldest_rule"), {"account": account.id, "now": now})


async def end_alerts(
    conn: Connection, account_id: int, rule_id: int, reason: str, now: datetime
) -> None:
    """What the rule held on holds no longer, and nobody is told; the account's alerts are held."""
    values = {"account": account_id, "rule": rule_id, "reason": reason, "now": now}
    await conn.execute(query("end_alerts_of_rule"), values)
    await conn.execute(query("drop_pending_of_rule"), values)


async def list_alerts(
    conn: Connection, account: Account, *, state: State | None, rule: int | None,
    devices: list[str] | None, limit: int, cursor: str | None,
) -> Page:  # fmt: skip
    """A page of alerts, newest first; with `devices` those on one of these.

    Raises `Invalid` for a cursor that is not ours.
    """
    values = {
        "account": account.id, "state": state, "rule": rule, "devices": devices,
        "before": lists.read_id(cursor), "limit": limit + 1,
    }  # fmt: skip
    rows = await (await conn.execute(query("list_alerts"), values)).fetchall()
    items = [msgspec.convert({**row, "device": row["device_id"]}, Alert) for row in rows[:limit]]
    return Page(items, lists.next_id(rows, limit))
