"""Devices and alert rules over a smaller plan's limit: the newest are paused, never deleted.

Which ones is decided by age alone, so it is the same whoever decides it and however often: as many
of the oldest as the plan has room for go on. A paused device keeps its readings and its secret;
the broker and the API refuse what it sends. Alerts on it end, and its silence is nobody's fault. A
place that becomes free goes to the oldest of them. What its owner switched off
is paused as well, and takes no place. A paused rule is not judged.
"""

from datetime import datetime
from typing import Any

from paqett import alerts, notices
from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query


async def fit(conn: Connection, account_id: int, most: int | None, now: datetime) -> None:
    """Pause what is over `most` devices (None: no limit), let go on what is not; tell of both."""
    rows = await _settle(conn, account_id, most, now)
    paused = sum(row["paused"] for row in rows)
    if paused:
        await notices.notify(conn, account_id, "devices_paused", count=paused, limit=most)
    if len(rows) > paused:
        await notices.notify(conn, account_id, "devices_resumed", count=len(rows) - paused)


async def _settle(
    conn: Connection, account_id: int, most: int | None, now: datetime
) -> list[dict[str, Any]]:
    await conn.execute(query("lock_device_count"), {"account": account_id})
    values = {"account": account_id, "limit": most, "now": now}
    return await (await conn.execute(query("pause_and_resume"), values)).fetchall()


async def enable(
    conn: Connection, account_id: int, device_id: str, plan: Plan, now: datetime, *, enabled: bool
) -> None:
    """Switch a device on or off, as its owner wants it; nobody need be told.

    One that is off is paused and takes no place, so an older one of those paused by the plan goes
    on; one that is switched on is paused where the plan has no room for it.
    """
    # locks in the order in which a deletion takes them
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_device_count"), {"account": account_id})
    values = {"account": account_id, "id": device_id, "enabled": enabled}
    if await (await conn.execute(query("enable_device"), values)).fetchone() is not None:
        await _settle(conn, account_id, plan.devices, now)


async def fit_rules(conn: Connection, account_id: int, most: int | None, now: datetime) -> None:
    """The same for `most` alert rules; what a paused one held on ends.

    The directory's lock is taken only where something is to change: every flush waits for it.
    """
    values = {"account": account_id, "limit": most, "now": now}
    if await (await conn.execute(query("rules_to_pause"), values)).fetchone() is None:
        return
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_rule_count"), {"account": account_id})
    rows = await (await conn.execute(query("pause_and_resume_rules"), values)).fetchall()
    for row in rows:
        if row["paused"]:
            await alerts.end_alerts(conn, account_id, row["id"], "rule_paused", now)
    paused = sum(row["paused"] for row in rows)
    if paused:
        await notices.notify(conn, account_id, "rules_paused", count=paused, limit=most)
    if len(rows) > paused:
        await notices.notify(conn, account_id, "rules_resumed", count=len(rows) - paused)


async def fit_plan(conn: Connection, account_id: int, plan: Plan, now: datetime) -> None:
    """Pause what `plan` has no room for, and let go on what it has."""
    await fit_rules(conn, account_id, plan.alert_rules, now)
    await fit(conn, account_id, plan.devices, now)
