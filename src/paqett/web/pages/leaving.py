"""Taking everything along, and going: Export All My Data, and Delete Account."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Template

from paqett import consequences, db
from paqett.erasure import closing
from paqett.errors import Invalid, Problem
from paqett.web import auth
from paqett.web.exports import ExportController, ExportIn
from paqett.web.pages import access, proof, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.session_cookie import session_cookie

_Request = Request[Any, Any, State]
_EXPORT, _DELETE = "/settings/export", "/settings/delete"
_UNDER_WAY = frozenset({"waiting", "running"})


async def _exports(request: _Request, form: Form | None = None) -> Template:
    services = request.app.state.services
    plan = services.plans[auth.principal_of(request).account.plan]
    page = await ask(request, ExportController.list_exports)
    return view.render(
        request, "export.html", form=form, exports=page.items, most=plan.exports_per_day,
        under_way=any(one.status in _UNDER_WAY for one in page.items),
    )  # fmt: skip


@get(_EXPORT, **access.person(while_disabled=True, counted=False))
async def exports(request: _Request) -> Template:
    """The archives there are, and the form for another."""
    return await _exports(request)


@post(_EXPORT, **access.person(while_disabled=True))
async def request_export(request: _Request) -> Response[Any]:
    """Have an archive made; the page and a notice tell when it is ready."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _exports(request, refused)
    try:
        data = convert({"format": form.text("format")}, ExportIn)
        await ask(request, ExportController.request_export, data=data)
    except Problem as error:
        return await _exports(request, form.refuse(error))
    return view.done(request, _EXPORT, "export_asked")


@post(_EXPORT + "/proof", **access.person(while_disabled=True))
async def prove_for_export(request: _Request) -> Response[Any]:
    """Who can prove themselves may fetch archives for a while."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _exports(request, refused)
    return view.done(request, _EXPORT)


@get(_EXPORT + "/{export_id:int}/download", **access.person(while_disabled=True))
async def download(request: _Request, export_id: FromPath[int]) -> Response[Any]:
    """The archive itself."""
    if access.needs_proof(request):
        return view.done(request, _EXPORT)
    answer: Response[Any] = await ask(
        request, ExportController.download_export, export_id=export_id
    )
    return answer


async def _deletion(request: _Request, form: Form | None = None) -> Template:
    return view.render(
        request, "delete_account.html", form=form, at_once=consequences.AT_ONCE,
        later=consequences.LATER, until_then=consequences.UNTIL_THEN, days=consequences.UNDO.days,
    )  # fmt: skip


@get(_DELETE, **access.person(while_disabled=True))
async def ask_delete(request: _Request) -> Template:
    """What deleting means, and the form."""
    return await _deletion(request)


@post(_DELETE, **access.person(while_disabled=True))
async def delete(request: _Request) -> Response[Any]:
    """Closed at once, erased in a week or now; the receipt's link is on this page."""
    form = await sent(request)
    person = access.profile_of(request)
    if form.text("email").strip().lower() != person.email.lower():
        wrong = Invalid("Type the address of this account, to be sure.", field="email")
        return await _deletion(request, form.refuse(wrong))
    if form.text("when") not in ("now", "in 7 days"):
        wrong = Invalid("Choose when.", field="when")
        return await _deletion(request, form.refuse(wrong))
    if refused := await proof.settle(request, form):
        return await _deletion(request, refused)
    services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        asked = await closing.ask(
            conn, person.id, "person", services.clock(), at_once=form.text("when") == "now"
        )
    access.leave(request)
    answer = view.render(request, "deleting.html", asked=asked)
    answer.cookies.append(session_cookie(services.settings, None))
    return answer


HANDLERS = (exports, request_export, prove_for_export, download, ask_delete, delete)
