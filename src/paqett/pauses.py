"""Devices and alert rules over a smaller plan's limit: the newest are paused, never deleted.

Which ones is decided by age alone, so it is the same whoever decides it and however often: as many
of the oldest as the plan has room for go on. A paused device keeps its readings and its secret;
the broker and the API refuse what it sends. Alerts on it end, and its silence is nobody's fault. A
place that becomes free goes to the oldest of them. A paused rule is not judged.
"""

from datetime import datetime

from paqett import alerts, notices
from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query


async def fit(conn: Connection, account_id: int, most: int | None, now: datetime) -> None:
    """Pause what is over `most` devices (None: no limit), let go on what is not; tell of both."""
    await conn.execute(query("lock_device_count"), {"account": account_id})
    values = {"account": account_id, "limit": most, "now": now}
    rows = await (await conn.execute(query("pause_and_resume"), values)).fetchall()
    paused = sum(row["paused"] for row in rows)
    if paused:
        await notices.notify(conn, account_id, "devices_paused", count=paused, limit=most)
    if len(rows) > paused:
        await notices.notify(conn, account_id, "devices_resumed", count=len(rows) - paused)


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
