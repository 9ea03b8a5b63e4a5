"""Taking everything along, and going: Export All My Data, Delete Account, and back again."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, QueryParameter
from litestar.response import Template

from paqett import consequences, db
from paqett.erasure import closing, receipts
from paqett.errors import Invalid, Problem
from paqett.web import auth
from paqett.web.deletion import DeletionController
from paqett.web.exports import ExportController, ExportIn
from paqett.web.pages import access, proof, view
from paqett.web.pages.asking import ask, ask_by_token
from paqett.web.pages.forms import Form, convert, sent

_Request = Request[Any, Any, State]
_EXPORT, _DELETE = "/settings/export", "/settings/delete"
_UNDER_WAY = frozenset({"waiting", "running"})
Token = Annotated[str, QueryParameter(max_length=200)]


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
    answer.cookies.append(auth.session_cookie(services.settings, None))
    return answer


@post("/settings/deletion/undo", **access.person(while_disabled=True))
async def undo(request: _Request) -> Response[Any]:
    """Open the account again."""
    services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        await closing.undo(conn, auth.principal_of(request).account.id, services.clock())
    return view.done(request, "/settings", "deletion_undone")


@get("/deletion/undo", **access.public())
async def ask_undo(request: _Request, token: Token = "") -> Template:
    """A button: programs that look through mail follow every link."""
    return view.render(request, "undo_deletion.html", token=token, undone=None)


@post("/deletion/undo", **access.public())
async def undo_by_link(request: _Request) -> Template:
    """By the link in the mail, which works once."""
    form = await sent(request)
    token = form.text("token")[:200]
    try:
        undone = await ask_by_token(request, DeletionController.undo_deletion, token)
    except Problem as error:
        refused = form.refuse(error)
        return view.render(request, "undo_deletion.html", form=refused, token="", undone=None)
    return view.render(request, "undo_deletion.html", token="", undone=undone)


@get("/deletion/receipt", **access.public())
async def receipt(request: _Request, token: Token = "") -> Template:
    """How the deletion stands, and what was erased; for as long as there is a receipt."""
    async with db.transaction(request.app.state.services.pool) as conn:
        shown = await receipts.by_token(conn, token)
    return view.render(request, "receipt.html", receipt=shown)


HANDLERS = (
    exports, request_export, prove_for_export, download, ask_delete, delete, undo, ask_undo,
    undo_by_link, receipt,
)  # fmt: skip
