"""The cookie of a session, and what a write has to carry beside it."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from paqett.settings import Settings

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"


def cookie_name(settings: Settings) -> str:
    """Under TLS the prefix makes the browser hold the cookie to this host (RFC 6265bis §4.1.3)."""
    return "__Host-paqett_session" if settings.behind_tls else "paqett_session"


def session_token(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The session's token the request carries, whatever it is worth."""
    return connection.cookies.get(cookie_name(connection.app.state.services.settings))


def session_cookie(settings: Settings, token: str | None) -> Cookie:
    """The session's cookie; None takes it away."""
    return Cookie(
        cookie_name(settings),
        value=token or "",
        max_age=int(settings.auth.session_max_s) if token else 0,
        path="/",
        secure=settings.behind_tls,
        httponly=True,
        samesite="lax",
    )
