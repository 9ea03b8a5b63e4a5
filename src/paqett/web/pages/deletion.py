"""Where the links in the mails of a deletion lead: undoing it, and its receipt."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Template

from paqett.errors import Problem
from paqett.web import deletion
from paqett.web.pages import access, view
from paqett.web.pages.forms import sent

_Request = Request[Any, Any, State]


def _token(request: _Request) -> str:
    return str(request.query_params.get("token", ""))[:200]


@get("/deletion/undo", **access.public())
async def ask_undo(request: _Request) -> Template:
    """The button: programs that look through mail follow every link."""
    return view.render(request, "undo_deletion.html", token=_token(request), undone=None)


@post("/deletion/undo", **access.public())
async def undo(request: _Request) -> Template:
    """The account is open again; signing in is the next step, since every session has ended."""
    form = await sent(request)
    token = form.text("token")[:200]
    try:
        undone = await deletion.undo(request, token)
    except Problem as error:
        refused = form.refuse(error)
        return view.render(request, "undo_deletion.html", form=refused, token="", undone=None)
    return view.render(request, "undo_deletion.html", token="", undone=undone)


@get("/deletion/receipt", **access.public())
async def receipt(request: _Request) -> Response[Any]:
    """What was erased; stays for good."""
    shown = await deletion.receipt(request, _token(request))
    return view.render(request, "deletion_receipt.html", receipt=shown)


HANDLERS = (ask_undo, undo, receipt)
