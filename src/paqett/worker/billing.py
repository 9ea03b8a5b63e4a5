"""Billing's jobs and its round, and warnings of the daily quota."""

from datetime import UTC

from procrastinate import App

from paqett import jobs, log, usage
from paqett.app import Services
from paqett.billing import sync
from paqett.billing.problems import BillingNotSetUp, NeedsOperator
from paqett.db import transaction
from paqett.sqlfiles import query
from paqett.worker.upkeep import kept

_logger = log.get("billing")


def register(app: App, services: Services) -> None:
    """The tasks behind `billing.sync`."""

    @app.task(name="sync_subscription", retry=jobs.Backoff())
    async def sync_subscription(account_id: int) -> None:
        """Ask Stripe and do what it says; safe to repeat."""
        if services.stripe is None:
            raise BillingNotSetUp
        async with transaction(services.pool) as conn:
            alerts = await sync.sync(
                conn, services.stripe, account_id, services.plans, services.first_plan,
                services.clock(),
            )  # fmt: skip
        _logger.info("synced", account=account_id)
        if alerts:  # done as far as it can be; the failed job is how an operator hears of it
            raise NeedsOperator(f"account {account_id}: {'; '.join(alerts)}")


async def reconcile(services: Services) -> None:
    """Webhooks may be lost: ask anew about whoever is due."""
    if services.stripe is None:
        return
    async with transaction(services.pool) as conn:
        asked = await sync.claim_due(conn, services.clock())
    if asked:
        _logger.info("reconciling", accounts=asked)


async def forget_events(services: Services) -> None:
    """Events and warnings whose time is over."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_events"), {"before": now - kept("stripe_events")})
        before = (now - kept("quota_warnings")).astimezone(UTC).date()
        await conn.execute(query("unscoped_forget_warnings"), {"before": before})


async def warn_of_quotas(services: Services) -> None:
    """80, 90 and 100 % of the day's points: each is told once."""
    async with transaction(services.pool) as conn:
        await usage.warn(conn, services.plans, services.clock())
