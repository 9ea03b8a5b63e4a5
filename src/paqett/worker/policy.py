"""Who had an account before a version of the privacy policy is told what it changed."""

from paqett import log, notices, policy
from paqett.app import Services
from paqett.db import transaction
from paqett.sqlfiles import query

_logger = log.get("policy")
EVERY_S = 10.0
"""How often a batch is told."""
AT_A_TIME = 100
"""Accounts in a batch. No more, so that mails people wait for do not queue behind these."""


async def tell(services: Services) -> None:
    """The next batch, in one transaction: that an account was told is noted with its notice.

    Passed over are addresses nobody confirmed and accounts that are being deleted; they hear of it
    once they are confirmed, or stay. Raises `ConfigurationError` for a version without its words.
    """
    newest = policy.in_force()
    values = {"version": newest.day, "most": AT_A_TIME}
    async with transaction(services.pool) as conn:
        claimed = await conn.execute(query("unscoped_claim_policy_change"), values)
        rows = await claimed.fetchall()
        for row in rows:
            await notices.notify(
                conn, row["id"], "policy_changed", version=newest.day, changed=newest.changed
            )
    if rows:
        _logger.info("told of the privacy policy", version=newest.day, accounts=len(rows))
