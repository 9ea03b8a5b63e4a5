"""What every request passes, whatever answers it: notes, limits, headers, figures, one log line."""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Histogram
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from paqett import log, tracing
from paqett.app import Services
from paqett.errors import ConfigurationError, Problem, RequestTimeout
from paqett.settings import Settings
from paqett.web import problems
from paqett.web.client import plain_address
from paqett.web.meter import Meter
from paqett.web.visit import Visit, visit_of

REFUSAL = "refusal"  # in the scope's state: the problem the listener found before the request came
BEGAN = "began"  # and when the request's first byte came, on the loop's clock, in seconds
PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'"
)
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (b"content-security-policy", PAGE_POLICY.encode())
_DATA = (b"content-security-policy", DATA_POLICY.encode())
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_logger = log.get("http")
_seconds = Histogram(
    "paqett_http_request_seconds", "From request to answer.", ["method", "route", "status"]
)


def wrap(app: ASGIApp, services: Services, meter: Meter | None = None) -> ASGIApp:
    """`app` behind the edge; with a meter, requests of keys and people are counted."""
    settings = services.settings
    app = _timely(app, settings.http.request_timeout_s)
    app = _answering(app, services, meter)
    return _noting(app, trusted_proxies(settings.http.trusted_proxies))


def trusted_proxies(text: str) -> list[str]:
    """The networks of `http.trusted_proxies`. Raises `ConfigurationError` for what is none."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        return [str(ip_network(word)) for word in words]
    except ValueError as error:
        raise ConfigurationError(f"http.trusted_proxies: {error}") from None


def _noting(app: ASGIApp, trusted: list[str]) -> ASGIApp:
    """Who is connected, who the client is, and a number for the request.

    A proxy that is trusted may name both; from anybody else these headers mean nothing.
    """
    proxied = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type]

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        visit = visit_of(scope)
        visit.peer = plain_address(client[0]) if client else ""
        if client is not None:
            scope["client"] = (visit.peer or client[0], client[1])
        believed = visit.peer in proxied.trusted_hosts
        visit.request_id = (_named(scope) if believed else None) or secrets.token_hex(8)
        # whose trace it belongs to only those may say who may name the request
        headers = scope["headers"] if believed else ()
        with (
            structlog.contextvars.bound_contextvars(request_id=visit.request_id),
            tracing.span("request", headers, server=True, request_id=visit.request_id) as span,
        ):
            visit.span = span
            try:
                await proxied(scope, receive, send)  # type: ignore[arg-type]
            finally:
                structlog.contextvars.unbind_contextvars("account")  # the guard's

    return note


def _named(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin1")
            return text if _ID.fullmatch(text) else None
    return None


def _answering(app: ASGIApp, services: Services, meter: Meter | None) -> ASGIApp:
    """Headers on every answer, and what is counted and logged of it."""
    fixed = security_headers(services.settings)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        started, status, visit = time.perf_counter(), 500, visit_of(scope)

        def count(requests: int, received: int, sent: int) -> None:
            if meter is not None and visit.principal is not None and _is_api(scope):
                day = services.clock().date()
                meter.add(visit.principal, day, requests, received, sent)

        async def receive_counted() -> Any:
            message: Any = await receive()
            visit.received += len(message.get("body", b""))
            return message

        async def send_complete(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_missing(message, scope, visit, fixed)]
                count(1, visit.received, 0)
            elif message["type"] == "http.response.body":
                count(0, 0, len(message.get("body", b"")))
            await send(message)

        try:
            await app(scope, receive_counted, send_complete)
        finally:
            _note_end(scope, visit, status, time.perf_counter() - started)

    return answer


def security_headers(settings: Settings) -> list[tuple[bytes, bytes]]:
    """On every answer that does not set them itself. The content's policy is chosen by its kind."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        # not no-referrer: browsers would then send `Origin: null` with our own forms
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    if settings.behind_tls:
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    return headers


def _is_api(scope: Scope) -> bool:
    """Our own pages are not metered."""
    return scope["path"].startswith("/api/")


def _missing(
    message: Any, scope: Scope, visit: Visit, fixed: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """What the answer lacks of what every answer has."""
    present = dict(message["headers"])
    is_page = present.get(b"content-type", b"").startswith(b"text/html")
    wanted = [
        *fixed,
        _PAGE if is_page else _DATA,
        (b"x-request-id", visit.request_id.encode()),
        *((name.lower().encode(), value.encode()) for name, value in visit.limits.items()),
    ]
    # a browser keeps what it is not told to forget, and an archive is everything of a person
    if _is_api(scope) or visit.principal is not None or message["status"] >= 400:
        wanted.append((b"cache-control", b"no-store"))
    return [(name, value) for name, value in wanted if name not in present]


def _note_end(scope: Scope, visit: Visit, status: int, seconds: float) -> None:
    """By the route's template, never by the path itself, which is a stranger's text."""
    route = str(scope.get("path_template") or "none")
    method: str = scope["method"]  # type: ignore[typeddict-item]
    _seconds.labels(method, route, status).observe(seconds)
    account = visit.principal.account.id if visit.principal else None
    visit.span.update_name(f"{method} {route}")
    visit.span.set_attribute("http.request.method", method)
    visit.span.set_attribute("http.route", route)
    visit.span.set_attribute("http.response.status_code", status)
    _logger.debug(
        "request", method=method, route=route, status=status, account=account,
        milliseconds=round(seconds * 1000, 1),
    )  # fmt: skip


def _timely(app: ASGIApp, timeout_s: float) -> ASGIApp:
    """Requests the listener has refused are answered here, and bodies must arrive in time."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        refusal: Problem | None = scope["state"].pop(REFUSAL, None)
        if refusal is not None:
            await problems.send_problem(send, refusal)
            return
        now = asyncio.get_running_loop().time()
        deadline, complete = scope["state"].pop(BEGAN, now) + timeout_s, False

        async def receive_timely() -> Any:
            nonlocal complete
            if complete:  # what comes after the body is the client's leaving, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message: Any = await receive()
            except TimeoutError:
                raise RequestTimeout(timeout_s) from None
            complete = not message.get("more_body", False)
            return message

        await app(scope, receive_timely, send)

    return run
