"""What is forgotten when its time is over: promises of the privacy policy, kept by the worker."""

from datetime import timedelta

from paqett import log
from paqett.app import Services
from paqett.db import transaction
from paqett.sqlfiles import query

_logger = log.get("upkeep")
_SECURITY_KEPT = timedelta(days=30)
_NOTICES_KEPT = timedelta(days=90)
_UNCONFIRMED_KEPT = timedelta(days=7)
_EXAMPLES_KEPT = timedelta(days=7)  # product contract §3: the rejection ledger


async def forget_examples(services: Services) -> None:
    """Refused payloads are kept for 7 days."""
    before = services.clock() - _EXAMPLES_KEPT
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_rejections"), {"before": before})


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
    """Security notices are kept for 30 days, others for 90."""
    now = services.clock()
    values = {"security": now - _SECURITY_KEPT, "others": now - _NOTICES_KEPT}
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_notices"), values)


async def forget_sessions(services: Services) -> None:
    """The record of a session is kept for 30 days after its end."""
    before = services.clock() - _SECURITY_KEPT
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_forget_sessions"), {"before": before})


async def erase_unconfirmed(services: Services) -> None:
    """Registrations nobody confirmed within 7 days."""
    before = services.clock() - _UNCONFIRMED_KEPT
    async with transaction(services.pool) as conn:
        found = await conn.execute(query("unscoped_unconfirmed_accounts"), {"before": before})
        rows = await found.fetchall()
    for row in rows:
        values = {"account": row["id"], "before": before}
        async with transaction(services.pool) as conn:
            await conn.execute(query("erase_unconfirmed_account"), values)
    if rows:
        _logger.info("erased unconfirmed registrations", accounts=len(rows))
