"""`/admin`: what an operator sees of all accounts: counts, times and sizes, never readings.

Whoever looks at one account is named among its notices; whoever looks at the list, in the log.
"""

from datetime import timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.params import FromPath, QueryParameter
from litestar.response import Template

from paqett import __version__, accounts, db, devices, doctor, jobs, log, notices, oversight, usage
from paqett.app import Services
from paqett.audit import report
from paqett.web.pages import access, view

_Request = Request[Any, Any, State]
_DAYS = 7
_A_PAGE = 100
_MOST_JOBS = 50
_MOST_TABLES = 12
_logger = log.get("admin")


@get("/admin", **access.operator())
async def admin(
    request: _Request,
    q: Annotated[str | None, QueryParameter(max_length=254, pattern=r"^[^\x00]*$")] = None,
    cursor: Annotated[int | None, QueryParameter(ge=1, le=2_147_483_647)] = None,
) -> Template:
    """The installation: its accounts, its ingest, its retention, its jobs."""
    services: Services = request.app.state.services
    now = services.clock()
    since = (now - timedelta(days=_DAYS)).date()
    _logger.info("operator looked", operator=access.profile_of(request).id, at="accounts")
    async with db.transaction(services.pool) as conn:
        used = {one.account_id: one for one in await oversight.usage(conn, since)}
        page = await accounts.list_page(conn, before=cursor, text=q or None, limit=_A_PAGE + 1)
        return view.render(
            request, "admin.html",
            accounts=page[:_A_PAGE], next_cursor=page[_A_PAGE - 1].id if page[_A_PAGE:] else None,
            cursor=cursor, q=q or "", used=used, days=_DAYS, counts=await accounts.counts(conn),
            heard=await oversight.last_heard(conn),
            hours=await oversight.ingest_hours(conn, now - timedelta(hours=24)),
            tiers=await oversight.retention(conn), jobs=await jobs.counts(conn),
            failures=await oversight.job_failures(conn, _MOST_JOBS),
            tables=await oversight.largest_tables(conn, _MOST_TABLES),
            edition=await doctor.edition(conn), version=__version__,
            privacy=await report.newest(conn),
            rate=_rate(await oversight.ingest_hours(conn, now - timedelta(hours=2)), now),
        )  # fmt: skip


def _rate(hours: list[oversight.IngestHour], now: Any) -> float:
    """Points a second in this hour and the one before, as far as they have passed."""
    passed = now - min((one.hour for one in hours), default=now)
    points = sum(one.points for one in hours)
    return points / passed.total_seconds() if passed else 0.0


@get("/admin/accounts/{account_id:int}", **access.operator())
async def account(request: _Request, account_id: FromPath[int]) -> Template:
    """One account's counts and states; its person is told that an operator looked."""
    services: Services = request.app.state.services
    operator = access.profile_of(request)
    async with db.transaction(services.pool) as conn:
        found = await accounts.find(conn, str(account_id))
        if operator.id != found.id:
            what, by = "the page of counts of this account", f"operator {operator.id} on the pages"
            await notices.notify(conn, found.id, "operator_access", what=what, by=by)
        plan = services.plans[found.plan]
        used = await usage.today(conn, found, plan, services.clock(), 30, months=12)
        count = await devices.count(conn, found)
        person = msgspec.structs.asdict(await accounts.profile(conn, found.id))
    kept = {name: person[name] for name in ("created_at", "email_verified_at", "disabled_at")}
    return view.render(
        request, "admin_account.html", account=found, plan=plan, used=used, devices=count, **kept
    )


HANDLERS = (admin, account)
