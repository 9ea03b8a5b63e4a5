"""A plan's requests a minute, for all API processes together.

A window is the minute that begins with an account's first request. The count stands in one row;
each process takes a few requests out of it at a time, and answers from those in memory. It takes
one, then twice as many as before, and never more than a sixteenth of what is left: so a plan's
3,000 requests write the row some 130 times, the last ones are handed out one by one, and no process
holds back more than it has used itself. Past the limit nothing is written until the window ends.
"""

import asyncio
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from litestar.connection import ASGIConnection
from psycopg_pool import AsyncConnectionPool

from paqett import db
from paqett.app import Services
from paqett.db import Connection
from paqett.errors import TooManyRequests, Unauthorized, rate_headers
from paqett.principals import Principal
from paqett.sqlfiles import query
from paqett.web.visit import visit_of

POLICY = "requests"
_WINDOW_S = 60
_WINDOW = timedelta(seconds=_WINDOW_S)
_SLACK = timedelta(seconds=10)  # another process may have looked at its clock a little later
_MANY = 10_000  # accounts in memory before those whose window is over are forgotten


class _Lease:
    """What one process holds of an account's window: `left` of its own, `others` in the row."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.limit = self.left = self.others = self.size = 0
        self.ends_at: datetime | None = None

    def holds(self, limit: int, now: datetime) -> bool:
        """Whether a request can be judged without asking the database."""
        if not self.open(now) or self.limit != limit:
            return False
        return self.left > 0 or self.others == 0

    def open(self, now: datetime) -> bool:
        """Whether the window goes on; one that ends too late is of a clock that was set back."""
        return self.ends_at is not None and now < self.ends_at <= now + _WINDOW + _SLACK


class Rates:
    """The leases of this process."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._leases: dict[int, _Lease] = {}
        self._many = _MANY

    async def take(self, account_id: int, limit: int, now: datetime) -> dict[str, str]:
        """Count one request; gives the answer's headers. Raises `TooManyRequests`."""
        lease = self._leases.get(account_id) or self._new(account_id, now)
        async with lease.lock:
            if not lease.holds(limit, now):
                await self._renew(lease, account_id, limit, now)
            wait_s = _seconds(lease, now)
            if lease.left == 0:
                raise TooManyRequests(POLICY, limit, _WINDOW_S, wait_s)
            lease.left -= 1
            return rate_headers(POLICY, limit, _WINDOW_S, lease.left + lease.others, wait_s)

    def _new(self, account_id: int, now: datetime) -> _Lease:
        if len(self._leases) >= self._many:
            kept = {k: v for k, v in self._leases.items() if v.open(now) or v.lock.locked()}
            self._leases, self._many = kept, max(_MANY, 2 * len(kept))
        return self._leases.setdefault(account_id, _Lease())

    async def _renew(self, lease: _Lease, account_id: int, limit: int, now: datetime) -> None:
        values = {
            "account": account_id,
            "limit": limit,
            "want": 2 * lease.size if lease.open(now) else 1,
            "now": now,
            "ends": now + _WINDOW,
        }
        async with db.transaction(self._pool) as conn:
            row = await (await conn.execute(query("lease_requests"), values)).fetchone()
        if row is None:
            raise Unauthorized("The account is gone.")
        lease.limit, lease.ends_at = limit, row["ends_at"]
        lease.left = lease.size = row["granted"]
        lease.others = max(0, limit - row["taken"])


def _seconds(lease: _Lease, now: datetime) -> int:
    end = lease.ends_at or now
    return max(1, ceil((end - now).total_seconds()))


async def charge(connection: ASGIConnection[Any, Any, Any, Any], principal: Principal) -> None:
    """Note whose request it is, and count it against the plan. Raises `TooManyRequests`.

    Not counted are ingest, which has limits of its own, pages, and handlers whose `opt` says
    `counted: False`.
    """
    visit = visit_of(connection.scope)
    if visit.principal is not None:
        return
    visit.principal = principal
    services: Services = connection.app.state.services
    plan = services.plans.get(principal.account.plan)
    if plan is None or plan.requests_per_minute is None or not _counted(connection):
        return
    rates: Rates = connection.app.state.rates
    limit = plan.requests_per_minute
    visit.limits = await rates.take(principal.account.id, limit, services.clock())


def _counted(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    opt = connection.scope["route_handler"].opt
    is_ingest = bool(opt.get("device"))  # the only endpoint devices may ask themselves
    return connection.scope["path"].startswith("/api/") and opt.get("counted", not is_ingest)
