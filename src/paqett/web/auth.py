"""Who asks, and whether the key's scope allows it."""

from base64 import b64decode
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from paqett import db, keys
from paqett.errors import MissingScope, Unauthorized
from paqett.keys import Principal

SCHEME = "apiKey"
DEVICE_SCHEME = "device"


def needs(scope: str) -> dict[str, Any]:
    """Arguments of a handler that needs a key with `scope`: the guard, and the same in OpenAPI."""
    return {"guards": [_guard], "opt": {"scope": scope}, "security": [{SCHEME: [scope]}]}


def needs_device_or(scope: str) -> dict[str, Any]:
    """The same, or the device itself with its id and secret (HTTP Basic)."""
    return {
        "guards": [_guard],
        "opt": {"scope": scope, "device": True},
        "security": [{SCHEME: [scope]}, {DEVICE_SCHEME: []}],
    }


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    services = connection.app.state.services
    kind, _, sent = connection.headers.get("authorization", "").partition(" ")
    kind, sent = kind.lower(), sent.strip()
    if kind == "basic" and handler.opt.get("device"):
        device_id, secret = _basic(sent)
        async with db.transaction(services.pool) as conn:
            principal = await keys.authenticate_device(conn, device_id, secret)
    elif kind == "bearer" and sent:
        async with db.transaction(services.pool) as conn:
            principal = await keys.authenticate(conn, sent, services.clock())
    else:
        raise Unauthorized("Send an API key: Authorization: Bearer pqt_…")
    if handler.opt["scope"] not in principal.scopes:
        raise MissingScope(handler.opt["scope"])
    connection.scope["user"] = principal


def _basic(sent: str) -> tuple[str, str]:
    try:
        user, _, password = b64decode(sent, validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("Send the device's id and secret: Authorization: Basic …") from None
    return user, password


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """The principal the guard found."""
    found: Principal = connection.scope["user"]
    return found
