"""Alerts in the worker: what has happened becomes notices at once, and time is looked after."""

import asyncio
from datetime import UTC

from paqett import alert_timers, db, log, notices
from paqett.app import Services
from paqett.db import transaction
from paqett.sqlfiles import query
from paqett.worker.upkeep import kept

_logger = log.get("alerts")
_DUE_EVERY_S = 1.0
_AT_MOST_EVERY_S = 0.05


async def tell(services: Services) -> None:
    """Make a notice of every transition there is, and go on as they come.

    A flush wakes us when it commits one; every second pending alerts are looked at, and whatever
    was missed. Runs until cancelled; raises what psycopg raises while the database is away.
    """
    async with await db.connect(services.settings.database, "alerts", autocommit=True) as conn:
        await conn.execute("LISTEN paqett_alerts")
        while True:
            await fire_due(services)
            await tell_all(services)
            async for _ in conn.notifies(timeout=_DUE_EVERY_S, stop_after=1):
                # any SQL login may send NOTIFY: however often, this is how often we look
                await asyncio.sleep(_AT_MOST_EVERY_S)


async def fire_due(services: Services) -> None:
    """Pending alerts whose time has come."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        accounts = await alert_timers.accounts_due(conn, now)
    for account_id in accounts:
        async with transaction(services.pool) as conn:
            await alert_timers.fire_due(conn, account_id, now)


async def tell_all(services: Services) -> None:
    """Notices of every transition there is."""
    told = 1
    while told:
        async with transaction(services.pool) as conn:
            told = await alert_timers.tell(conn)
        if told:
            _logger.info("told", alerts=told)


async def look_after_absence(services: Services) -> None:
    """Silence, connections, and metrics that are gone."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        since = await alert_timers.counting_from(conn, now)
        accounts = await alert_timers.accounts_unsettled(conn, since, now)
    for account_id in accounts:
        async with transaction(services.pool) as conn:
            await alert_timers.settle(conn, account_id, since, now)
    if accounts:
        await tell_all(services)


async def sum_up_mails(services: Services) -> None:
    """What was held back on days that are over: one notice for each account and day."""
    today = services.clock().astimezone(UTC).date()
    async with transaction(services.pool) as conn:
        rows = await (
            await conn.execute(query("unscoped_open_mail_days"), {"today": today})
        ).fetchall()
    for row in rows:
        async with transaction(services.pool) as conn:
            await notices.sum_up(conn, row["account_id"], row["day"])


async def forget_old(services: Services) -> None:
    """Alerts that ended, values of those that last, deliveries and counters of mails."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        values = {"now": now, "kept": kept("alerts")}
        await conn.execute(query("unscoped_forget_alerts"), values)
        await conn.execute(query("unscoped_forget_alert_values"), {"now": now})
        before = now - kept("deliveries")
        await conn.execute(query("unscoped_forget_deliveries"), {"before": before})
        await conn.execute(query("unscoped_forget_mail_days"), {"before": before.date()})
