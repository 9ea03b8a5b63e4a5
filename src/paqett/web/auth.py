"""Who asks: an API key, a session's cookie, or a device; and whether they may.

A request that names credentials in its `Authorization` header is judged by them alone. Else the
cookie counts, and then a write must carry the session's `X-CSRF-Token`: a foreign page can make a
browser send the cookie, but neither that header nor `Authorization`.
"""

import hmac
from base64 import b64decode
from datetime import timedelta
from typing import Any

import structlog
from litestar.connection import ASGIConnection, Request
from litestar.handlers.base import BaseRouteHandler

from paqett import db, keys, log, sessions, throttle
from paqett.app import Services
from paqett.errors import MissingScope, Problem, Unauthorized, UnsupportedMediaType
from paqett.principals import Principal, Session
from paqett.throttle import KEY_FAILURES_ADDRESS
from paqett.web import rate
from paqett.web.client import client_address, client_network
from paqett.web.fields import fields
from paqett.web.forbidden import (
    AccountClosing,
    AccountDisabled,
    CsrfFailed,
    DeviceDisabled,
    ReauthenticationRequired,
    SessionRequired,
)
from paqett.web.session_cookie import CSRF_FIELD, CSRF_HEADER, session_token

SCHEME = "apiKey"
DEVICE_SCHEME = "device"
SESSION_SCHEME = "session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Connection = ASGIConnection[Any, Any, Any, Any]
_logger = log.get("auth")


def needs(*scopes: str) -> dict[str, Any]:
    """Arguments of a handler for keys with all `scopes`, and for sessions: guard and OpenAPI."""
    return {
        "guards": [guard],
        "opt": {"scopes": scopes},
        "security": [{SCHEME: list(scopes)}, {SESSION_SCHEME: []}],
    }


def needs_device_or(scope: str) -> dict[str, Any]:
    """The same, or the device itself with its id and secret (HTTP Basic)."""
    return {
        "guards": [guard],
        "opt": {"scopes": (scope,), "device": True},
        "security": [{SCHEME: [scope]}, {SESSION_SCHEME: []}, {DEVICE_SCHEME: []}],
    }


def needs_session(*, recent: bool = False, while_disabled: bool = False) -> dict[str, Any]:
    """Arguments of a handler for signed-in people; with `recent`, who just proved who they are.

    `while_disabled` is for what is left to a disabled account, and to one that is closing.
    """
    return {
        "guards": [guard],
        "opt": {"session": True, "recent": recent, "while_disabled": while_disabled},
        "security": [{SESSION_SCHEME: []}],
    }


def public() -> dict[str, Any]:
    """Arguments of a handler that anybody may call, said in OpenAPI by an empty requirement."""
    return {"guards": [_own_pages_or_programs], "security": [{}]}


async def _own_pages_or_programs(connection: Connection, _: BaseRouteHandler) -> None:
    """Other sites' forms can send anything but JSON: nobody is signed in by one (login CSRF)."""
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if connection.scope["method"] not in _SAFE and kind != "application/json":  # type: ignore[typeddict-item]
        raise UnsupportedMediaType("Send application/json.")


async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """Find out who asks, count it, and refuse what they may not do."""
    services: Services = connection.app.state.services
    try:
        principal = await _authenticate(connection, handler, services)
    except Unauthorized as error:
        if connection.headers.get("authorization") or session_token(connection):
            async with db.transaction(services.pool) as conn:
                network = client_network(connection)
                await throttle.hit(conn, KEY_FAILURES_ADDRESS, network, services.clock())
            _note_refusal(connection, error, None)  # behind the limit: strangers fill no log
        raise
    connection.scope["user"] = principal
    structlog.contextvars.bind_contextvars(account=principal.account.id)
    await rate.charge(connection, principal)
    try:
        allow(principal, handler.opt, services)
    except Problem as error:
        _note_refusal(connection, error, principal.account.id)
        raise


def needs_session_or_token() -> dict[str, Any]:
    """The same, or anybody with a token from a mail, which the handler redeems."""
    return {
        "guards": [_guard_unless_token],
        "opt": {"session": True, "while_disabled": True},
        "security": [{SESSION_SCHEME: []}, {}],
    }


async def _guard_unless_token(connection: Connection, handler: BaseRouteHandler) -> None:
    """A token in the link is judged alone, whoever is signed in; else whoever has credentials."""
    sent = connection.headers.get("authorization") or session_token(connection)
    if "token" not in connection.query_params and sent:
        await guard(connection, handler)


def _note_refusal(connection: Connection, error: Problem, account_id: int | None) -> None:
    """A line without address, path or credentials; the request's number joins it to others."""
    route = connection.scope.get("path_template")
    _logger.info("refused", code=error.code, route=route, account=account_id)


async def _authenticate(
    connection: Connection, handler: BaseRouteHandler, services: Services
) -> Principal:
    kind, _, sent = connection.headers.get("authorization", "").partition(" ")
    kind, sent, now = kind.lower(), sent.strip(), services.clock()
    address = client_address(connection)
    if kind == "basic" and handler.opt.get("device"):
        device_id, secret = _basic(sent)
        async with db.statements(services.pool) as conn:
            return await keys.authenticate_device(conn, device_id, secret, now, address)
    if kind == "bearer" and sent:
        async with db.statements(services.pool) as conn:
            return await keys.authenticate(conn, sent, now, address)
    token = session_token(connection)
    if kind or token is None:
        raise Unauthorized("Sign in, or send an API key: Authorization: Bearer pqt_…")
    async with db.transaction(services.pool) as conn:
        idle_s = services.settings.auth.session_idle_s
        principal = await sessions.authenticate(conn, token, now, idle_s)
    if connection.scope["method"] not in _SAFE:  # type: ignore[typeddict-item]
        await _check_csrf(connection, handler, token)
    return principal


def allow(principal: Principal, wanted: dict[str, Any], services: Services) -> None:
    """Raises where the principal is known but may not do what a handler's `opt` asks for."""
    if principal.account.closing_at is not None and not wanted.get("while_disabled"):
        raise AccountClosing
    if principal.account.disabled_at is not None and not wanted.get("while_disabled"):
        is_device = principal.session is None and principal.key_id is None
        raise DeviceDisabled if is_device else AccountDisabled
    if wanted.get("session"):
        if principal.session is None:
            raise SessionRequired
        if wanted.get("recent"):
            require_recent(principal.session, services)
        return
    for scope in wanted["scopes"]:
        if scope not in principal.scopes:
            raise MissingScope(scope)


async def _check_csrf(connection: Connection, handler: BaseRouteHandler, token: str) -> None:
    """Pages carry the token in their forms, as they work without JavaScript too."""
    sent = connection.headers.get(CSRF_HEADER, "")
    if not sent and handler.opt.get("page") and isinstance(connection, Request):
        sent = (await fields(connection)).get(CSRF_FIELD, [""])[0]
    if not hmac.compare_digest(sent.encode(), sessions.csrf_token(token).encode()):
        raise CsrfFailed


def require_recent(session: Session, services: Services) -> None:
    """Raises `ReauthenticationRequired` where the last proof is older than the setting allows."""
    age = services.clock() - session.authenticated_at
    if age > timedelta(seconds=services.settings.auth.recent_s):
        raise ReauthenticationRequired


async def require_session_of(connection: Connection, account_id: int) -> None:
    """Raises `Unauthorized` unless the cookie is of a live session of this account."""
    services: Services = connection.app.state.services
    token = session_token(connection)
    if token is not None:
        async with db.transaction(services.pool) as conn:
            idle_s = services.settings.auth.session_idle_s
            found = await sessions.authenticate(conn, token, services.clock(), idle_s)
        own = found.account
        if own.id == account_id and own.disabled_at is None and own.closing_at is None:
            return
    raise Unauthorized("The session that began this has ended; sign in again.")


def _basic(sent: str) -> tuple[str, str]:
    try:
        user, _, password = b64decode(sent, validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("Send the device's id and secret: Authorization: Basic …") from None
    return user, password


def principal_of(connection: Connection) -> Principal:
    """The principal the guard found."""
    found: Principal = connection.scope["user"]
    return found


def session_of(connection: Connection) -> Session:
    """The session the guard found. Raises `SessionRequired` where a key or a device asks."""
    session = principal_of(connection).session
    if session is None:
        raise SessionRequired
    return session
