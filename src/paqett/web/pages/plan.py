"""`/settings/plan`: what is used of the plan, what it costs, and how it is changed."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Template

from paqett import charts, db, devices
from paqett.errors import Problem
from paqett.usage import LEVELS
from paqett.web import auth
from paqett.web.billing import BillingController, Wanted, get_plan
from paqett.web.pages import access, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.usage import UsageController

_Request = Request[Any, Any, State]
_PATH = "/settings/plan"
_CAME_BACK = {
    "done": "Thank you. Your plan changes as soon as Stripe confirms the payment, usually within"
    " seconds; load this page again to see it.",
    "cancelled": "Nothing was bought, and nothing has changed.",
}


async def _show(request: _Request, form: Form | None = None) -> Template:
    services = request.app.state.services
    account = auth.principal_of(request).account
    plan = await ask(request, get_plan)
    used = await ask(request, UsageController.usage, days=30, months=12)
    async with db.transaction(services.pool) as conn:
        count = await devices.count(conn, account)
        known = await charts.known(conn, account, [one.device for one in used.devices])
    return view.render(
        request, "plan.html", form=form, plan=plan, used=used, devices=count, levels=LEVELS,
        names={one.device: one.name for one in known},
        came_back=_CAME_BACK.get(str(request.query_params.get("checkout", ""))),
    )  # fmt: skip


@get(_PATH, **access.person())
async def plan_page(request: _Request) -> Template:
    """Today against the plan, the days and months before, and what can be bought."""
    return await _show(request)


@post(_PATH + "/checkout", **access.person())
async def checkout(request: _Request) -> Response[Any]:
    """To Stripe's Checkout."""
    form = await sent(request)
    try:
        wanted = convert({"plan": form.text("plan")}, Wanted)
        there = await ask(request, BillingController.begin_checkout, data=wanted)
    except Problem as error:
        return await _show(request, form.refuse(error))
    return view.away(request, there.url, "Stripe")


@post(_PATH + "/portal", **access.person(while_disabled=True))
async def portal(request: _Request) -> Response[Any]:
    """To Stripe's portal: change, pay, cancel, invoices."""
    form = await sent(request)
    try:
        there = await ask(request, BillingController.open_portal)
    except Problem as error:
        return await _show(request, form.refuse(error))
    return view.away(request, there.url, "Stripe")


HANDLERS = (plan_page, checkout, portal)
