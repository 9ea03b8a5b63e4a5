"""`/unsubscribe`: out of one kind of mail by the link in it, without signing in (RFC 8058).

A mail program sends the POST by itself; a person gets a page with a button first, since programs
that look through mail for bad links follow every one of them.
"""

from html import escape
from typing import Annotated, Any

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import QueryParameter

from paqett import db, notices

_Token = Annotated[str, QueryParameter(max_length=200)]
_Request = Request[Any, Any, State]
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mails from Paqett</title></head>
<body><main><h1>Mails from Paqett</h1>
<p>{text}</p>{form}</main></body>
</html>
"""
_FORM = """
<form method="post" action="/unsubscribe?token={token}"><button>Send me no more</button></form>"""
_UNKNOWN = "This link is not one of ours, or its account is gone."


def _page(status: int, text: str, form: str = "") -> Response[str]:
    return Response(
        _PAGE.format(text=escape(text), form=form),
        status_code=status,
        media_type=MediaType.HTML,
        headers={"Cache-Control": "no-store"},
    )


@get("/unsubscribe", include_in_schema=False)
async def ask_unsubscribe(request: _Request, token: _Token = "") -> Response[str]:
    """The button; changes nothing."""
    async with db.transaction(request.app.state.services.pool) as conn:
        found = await notices.check_unsubscribe(conn, token)
    if found is None:
        return _page(404, _UNKNOWN)
    text = f"No more mails about {found[1]} notices? They stay in the list of your notices."
    return _page(200, text, _FORM.format(token=escape(token)))


@post("/unsubscribe", include_in_schema=False)
async def unsubscribe(request: _Request, token: _Token = "") -> Response[str]:
    """Unwanted from now on; asking again changes nothing."""
    async with db.transaction(request.app.state.services.pool) as conn:
        kind = await notices.unsubscribe(conn, token)
    if kind is None:
        return _page(404, _UNKNOWN)
    return _page(200, f"You get no more mails about {kind} notices. Your settings turn them on.")
