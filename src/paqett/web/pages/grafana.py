"""`/settings/grafana`: the account's SQL login, and the files Grafana is set up with."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Template

from paqett import db, grafana
from paqett.errors import Problem
from paqett.web import auth
from paqett.web.grafana import GrafanaController
from paqett.web.pages import access, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, sent

_Request = Request[Any, Any, State]
_PATH = "/settings/grafana"


async def _show(request: _Request, form: Form | None = None, **more: Any) -> Template:
    services = request.app.state.services
    account = auth.principal_of(request).account
    async with db.transaction(services.pool) as conn:
        made = await grafana.find(conn, account)
    return view.render(
        request, "grafana.html", form=form, login=made,
        in_plan=services.plans[account.plan].grafana, **{"shown": None, **more},
    )  # fmt: skip


@get(_PATH, **access.person())
async def grafana_page(request: _Request) -> Template:
    """Both ways to read with Grafana."""
    return await _show(request)


@post(_PATH, **access.person())
async def make_login(request: _Request) -> Response[Any]:
    """A login, or a new password for it; it is on this page and nowhere else."""
    form = await sent(request)
    try:
        made = await ask(request, GrafanaController.create_login)
    except Problem as error:
        return await _show(request, form.refuse(error))
    return await _show(request, shown=made)


@post(_PATH + "/delete", **access.person())
async def drop_login(request: _Request) -> Response[Any]:
    """End the login and its sessions."""
    await ask(request, GrafanaController.drop_login)
    return view.done(request, _PATH, "login_dropped")


HANDLERS = (grafana_page, make_login, drop_login)
