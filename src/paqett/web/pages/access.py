"""Who may see a page, and whose form is taken.

A page for people asks for the session's cookie; whoever has none is sent to sign in. A form carries
the session's token as a field, the same that the API takes in `X-CSRF-Token`. Forms of pages that
need no session are held to our own site by what the browser says of where they come from: a page
of another site could otherwise sign somebody in to an account that is not theirs.
"""

from typing import Any

from litestar import Request
from litestar.handlers.base import BaseRouteHandler

from paqett import accounts, db, sessions
from paqett.accounts import Profile
from paqett.app import Services
from paqett.errors import NotFound, Problem, Unauthorized
from paqett.web import auth
from paqett.web.fields import LARGEST
from paqett.web.forbidden import ReauthenticationRequired
from paqett.web.session_cookie import session_token

_Request = Request[Any, Any, Any]
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PERSON, _TOKEN = "person", "session_token"


class ForeignForm(Problem):
    """A form that another site's page sent."""

    status = 403
    code = "foreign_form"
    title = "This form was not ours"

    def __init__(self) -> None:
        super().__init__("The form came from another site. Open the page here and send it again.")


def person(*, while_disabled: bool = False, counted: bool = True) -> dict[str, Any]:
    """Arguments of a page's handler for signed-in people; others are sent to sign in."""
    opt = {"session": True, "page": True, "while_disabled": while_disabled, "counted": counted}
    return {"guards": [_own_site, _signed_in], "opt": opt, **_PAGE}


def operator() -> dict[str, Any]:
    """The same for operators; to everybody else the page is not there."""
    return {"guards": [_own_site, _operator], "opt": {"session": True, "page": True}, **_PAGE}


def public() -> dict[str, Any]:
    """Arguments of a page's handler that anybody may see."""
    return {"guards": [_own_site, _visitor], "opt": {"page": True}, **_PAGE}


_PAGE: dict[str, Any] = {"include_in_schema": False, "request_max_body_size": LARGEST}


def person_of(request: _Request) -> Profile | None:
    """The signed-in person, where there is one."""
    found: Profile | None = request.scope["state"].get(_PERSON)
    return found


def profile_of(request: _Request) -> Profile:
    """The signed-in person on pages that have one."""
    found = person_of(request)
    if found is None:
        raise Unauthorized("Sign in first.")
    return found


def csrf_of(request: _Request) -> str:
    """What the page's forms carry; empty where nobody is signed in."""
    token = request.scope["state"].get(_TOKEN) or session_token(request)
    return sessions.csrf_token(token) if token and person_of(request) else ""


def renew(request: _Request, token: str) -> None:
    """The session goes on under a new token from here on."""
    request.scope["state"][_TOKEN] = token


def leave(request: _Request) -> None:
    """Nobody is signed in from here on."""
    request.scope["state"].pop(_PERSON, None)
    request.scope["state"].pop(_TOKEN, None)


def renewed(request: _Request) -> str | None:
    """The token the answer's cookie must carry, where it is another than the request's."""
    found: str | None = request.scope["state"].get(_TOKEN)
    return found


def needs_proof(request: _Request) -> bool:
    """Whether a step that is sensitive asks for the password, or a mailed code, first."""
    if person_of(request) is None:
        return False
    try:
        auth.require_recent(auth.session_of(request), request.app.state.services)
    except ReauthenticationRequired:
        return True
    return False


async def _own_site(connection: auth.Connection, _: BaseRouteHandler) -> None:
    """Raises `ForeignForm`. What says neither is no browser, and has no cookies to be abused."""
    if connection.scope["method"] in _SAFE:  # type: ignore[typeddict-item]
        return
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise ForeignForm
        return
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != connection.headers.get("host"):
        raise ForeignForm


async def _signed_in(connection: auth.Connection, handler: BaseRouteHandler) -> None:
    await auth.guard(connection, handler)
    await _load(connection)


async def _operator(connection: auth.Connection, handler: BaseRouteHandler) -> None:
    await _signed_in(connection, handler)
    found: Profile = connection.scope["state"][_PERSON]
    if not found.operator:
        raise NotFound("There is no such page.")


async def _visitor(connection: auth.Connection, _: BaseRouteHandler) -> None:
    """Whoever is signed in is told so on public pages too; a session that has ended is nobody."""
    token = session_token(connection)
    if token is None:
        return
    services: Services = connection.app.state.services
    async with db.transaction(services.pool) as conn:
        try:
            idle_s = services.settings.auth.session_idle_s
            principal = await sessions.authenticate(conn, token, services.clock(), idle_s)
        except Unauthorized:
            return
    connection.scope["user"] = principal
    await _load(connection)


async def _load(connection: auth.Connection) -> None:
    services: Services = connection.app.state.services
    account_id = auth.principal_of(connection).account.id
    async with db.transaction(services.pool) as conn:
        connection.scope["state"][_PERSON] = await accounts.profile(conn, account_id)
