"""`/unsubscribe`: out of one kind of mail by the link in it, without signing in (RFC 8058).

A mail program sends the POST by itself; a person gets a page with a button first, since programs
that look through mail for bad links follow every one of them.
"""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.datastructures import State
from litestar.params import QueryParameter
from litestar.response import Template

from paqett import db, notices
from paqett.notice_events import Kind
from paqett.web.pages import access, view

_Token = Annotated[str, QueryParameter(max_length=200)]
_Request = Request[Any, Any, State]


def _page(request: _Request, kind: Kind | None, token: str = "") -> Template:
    """`token` where there is still something to ask."""
    status = 404 if kind is None else 200
    return view.render(request, "unsubscribe.html", status=status, kind=kind, token=token)


@get("/unsubscribe", **access.public())
async def ask_unsubscribe(request: _Request, token: _Token = "") -> Template:
    """The button; changes nothing."""
    async with db.transaction(request.app.state.services.pool) as conn:
        found = await notices.check_unsubscribe(conn, token)
    return _page(request, found and found[1], token)


# no guard: a mail program sends it by itself, and the link's signature is its proof
@post("/unsubscribe", include_in_schema=False)
async def unsubscribe(request: _Request, token: _Token = "") -> Template:
    """Unwanted from now on; asking again changes nothing."""
    async with db.transaction(request.app.state.services.pool) as conn:
        return _page(request, await notices.unsubscribe(conn, token))
