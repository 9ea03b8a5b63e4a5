"""What is forgotten when its time is over: promises of the privacy policy, kept by the worker."""

from datetime import UTC, timedelta

from paqett import log, register
from paqett.app import Services
from paqett.db import transaction
from paqett.sqlfiles import query

_logger = log.get("upkeep")
EVERY_S = 600.0
"""How often what follows goes round."""
USAGE_EVERY_S = 6 * 3600.0
"""The same for usage: it reads whole tables."""


def kept(period: str) -> timedelta:
    """How long what has this name is kept, by the register of personal data."""
    return register.load().period(period)


async def forget_examples(services: Services) -> None:
    """Refused payloads, when their time is over."""
    values = {"now": services.clock(), "kept": kept("rejections")}
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_rejections"), values)


async def forget_tokens(services: Services) -> None:
    """What was mailed and never used goes when it expires."""
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_tokens"), {"now": services.clock()})


async def forget_attempts(services: Services) -> None:
    """Strangers' attempts are counted no longer than their windows last."""
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_throttle"), {"now": services.clock()})


async def forget_streams(services: Services) -> None:
    """Live streams whose process died."""
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_streams"))


async def end_sessions(services: Services) -> None:
    """What can no longer be used is ended, so that its record ages."""
    now = services.clock()
    idle_since = now - timedelta(seconds=services.settings.auth.session_idle_s)
    async with transaction(services.pool) as conn:
        values = {"now": now, "idle_since": idle_since}
        await conn.execute(query("unscoped_end_expired_sessions"), values)


async def forget_notices(services: Services) -> None:
    """Security notices have a shorter time than others."""
    values = {"now": services.clock(), "security": kept("security"), "others": kept("notices")}
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_notices"), values)


async def forget_sessions(services: Services) -> None:
    """The record of a session, so long after its end; of one that lives, where it was begun."""
    before = services.clock() - kept("security")
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_sessions"), {"before": before})
        await conn.execute(query("unscoped_forget_addresses"), {"before": before})


async def forget_connections(services: Services) -> None:
    """When and from where devices connected, and where secrets and keys were last used from."""
    before = services.clock() - kept("security")
    for name in (
        "unscoped_forget_device_events", "unscoped_forget_device_addresses",
        "unscoped_forget_key_addresses",
    ):  # fmt: skip
        async with transaction(services.pool) as conn:
            await conn.execute(query(name), {"before": before})


async def forget_jobs(services: Services) -> None:
    """Jobs that failed and nobody looked after, and windows of requests that are over."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_jobs"), {"before": now - kept("failed_jobs")})
        await conn.execute(query("unscoped_forget_windows"), {"now": now})


async def forget_usage(services: Services) -> None:
    """Counters and reports that nobody is shown any more."""
    now = services.clock()
    before = now - kept("usage")
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_usage"), {"before": before})
        await conn.execute(query("unscoped_forget_rejected"), {"before": before})
        day = before.astimezone(UTC).date()
        await conn.execute(query("unscoped_forget_api_usage"), {"before": day})
        before = now - kept("privacy_checks")
        await conn.execute(query("unscoped_forget_privacy_checks"), {"before": before})


async def erase_unconfirmed(services: Services) -> None:
    """Registrations nobody confirmed in time."""
    before = services.clock() - kept("unconfirmed")
    async with transaction(services.pool) as conn:
        found = await conn.execute(query("unscoped_unconfirmed_accounts"), {"before": before})
        rows = await found.fetchall()
    for row in rows:
        values = {"account": row["id"], "before": before}
        async with transaction(services.pool) as conn:
            gone = await conn.execute(query("erase_unconfirmed_account"), values)
            if gone.rowcount:
                await conn.execute(query("erase_jobs"), values)
    if rows:
        _logger.info("erased unconfirmed registrations", accounts=len(rows))
