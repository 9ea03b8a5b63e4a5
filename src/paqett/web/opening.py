"""A session begins: what must be right before, what it tells the person, and its cookie."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.datastructures import State

from paqett import accounts, db, log, notices, sessions
from paqett.accounts import SignIn
from paqett.app import Services
from paqett.errors import Invalid, NotFound, Unauthorized
from paqett.sessions import Opening
from paqett.web import auth
from paqett.web.client import client_address
from paqett.web.session_cookie import CSRF_HEADER, session_cookie, session_token

_Request = Request[Any, Any, State]
_logger = log.get("sign-in")
_NEW = timedelta(days=1)  # so long an account's first sign-in is no news to its person


class SignedIn(msgspec.Struct):
    """`csrf_token` goes into the header `X-CSRF-Token` of every write with the cookie."""

    account: accounts.Profile
    csrf_token: str


class InvalidCredentials(Unauthorized):
    """Address or password; which of them is not said."""

    code = "invalid_credentials"
    title = "Sign-in refused"

    def __init__(self) -> None:
        super().__init__("This address and password do not belong together.")


async def check_password(services: Services, account: SignIn, password: str | None) -> None:
    """Raises `InvalidCredentials` for a password that is not the account's, or is missing."""
    if password is None:
        raise Invalid("Send the account's password.", field="password")
    if not (await services.hasher.verify(account.password_hash, password)).right:
        raise InvalidCredentials


async def change_password(
    conn: db.Connection, account_id: int, hashed: str, now: datetime, *, but: int | None
) -> None:
    """Store it, end every session but one, and tell the person."""
    await accounts.set_password(conn, account_id, hashed)
    await sessions.end_all(conn, account_id, now, but=but)
    await notices.notify(conn, account_id, "password_changed")


async def open_session(
    request: _Request, account: SignIn, method: str, rehashed: str | None = None
) -> tuple[str, accounts.Profile]:
    """A new session's token for somebody who has shown who they are, and what they then see.

    The session the browser had, if any, ends: nobody can be signed in to a session made for them.
    """
    services: Services = request.app.state.services
    how = Opening(method, client_address(request), request.headers.get("user-agent"))
    async with db.transaction(services.pool) as conn:
        now = services.clock()
        await _leave(conn, request, now)
        past = await sessions.past(conn, account.id, how.ip)
        # sessions are forgotten after a time: then every address is an unknown one again
        is_new = account.email_verified_at is None or account.email_verified_at > now - _NEW
        if not past.from_here and (past.any or not is_new):
            await notices.notify(
                conn, account.id, "new_sign_in",
                ip=how.ip, agent=how.agent, method=method, time=now.isoformat(),
            )  # fmt: skip
        if rehashed is not None:
            await accounts.set_password(conn, account.id, rehashed)
        lasts_s = services.settings.auth.session_max_s
        token = await sessions.open_session(conn, account.id, how, now, lasts_s)
        _logger.info("signed in", account=account.id, method=method)
        return token, await accounts.profile(conn, account.id)


async def _leave(conn: db.Connection, request: _Request, now: datetime) -> None:
    """End the session whose cookie came along, whosever it is."""
    services: Services = request.app.state.services
    token = session_token(request)
    if token is None:
        return
    try:
        idle_s = services.settings.auth.session_idle_s
        old = await sessions.authenticate(conn, token, now, idle_s)
        if old.session is not None:
            await sessions.end(conn, old.account.id, old.session.id, now)
    except (Unauthorized, NotFound):
        return


async def renewed(request: _Request) -> Response[Any]:
    """The same session under a new token, its person proved just now."""
    services: Services = request.app.state.services
    account, session = auth.principal_of(request).account, auth.session_of(request)
    async with db.transaction(services.pool) as conn:
        token = await sessions.renew(conn, account.id, session.id, services.clock())
        profile = await accounts.profile(conn, account.id)
    return answered(services, token, profile)


def answered(services: Services, token: str, profile: accounts.Profile) -> Response[SignedIn]:
    """Who has signed in, and the cookie of their session."""
    csrf = sessions.csrf_token(token)
    return Response(
        SignedIn(profile, csrf),
        status_code=200,
        headers={CSRF_HEADER: csrf},
        cookies=[session_cookie(services.settings, token)],
    )
