"""Who asks, and whether the key's scope allows it."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from paqett import db, keys
from paqett.errors import MissingScope, Unauthorized
from paqett.keys import Principal

SCHEME = "apiKey"


def needs(scope: str) -> dict[str, Any]:
    """Arguments of a handler that needs a key with `scope`: the guard, and the same in OpenAPI."""
    return {"guards": [_guard], "opt": {"scope": scope}, "security": [{SCHEME: [scope]}]}


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    services = connection.app.state.services
    kind, _, key = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not key:
        raise Unauthorized("Send an API key: Authorization: Bearer pqt_…")
    async with db.transaction(services.pool) as conn:
        principal = await keys.authenticate(conn, key.strip(), services.clock())
    if handler.opt["scope"] not in principal.scopes:
        raise MissingScope(handler.opt["scope"])
    connection.scope["user"] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """The principal the guard found."""
    found: Principal = connection.scope["user"]
    return found
