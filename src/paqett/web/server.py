"""The Litestar applications and the uvicorn servers they run in."""

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import uvicorn
from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Histogram
from psycopg.errors import QueryCanceled

from paqett import __version__
from paqett.app import Services
from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError, Problem
from paqett.flush.door import Door
from paqett.flush.writer import Writer
from paqett.readings.directory import Directory
from paqett.settings import Http, Settings
from paqett.web import problems
from paqett.web.account import AccountController, SessionController
from paqett.web.api_keys import ApiKeyController
from paqett.web.auth import CSRF_HEADER, DEVICE_SCHEME, SCHEME, SESSION_SCHEME, cookie_name
from paqett.web.billing import BillingController, get_plan, stripe_webhook
from paqett.web.devices import DeviceController
from paqett.web.health import healthz, metrics, readyz
from paqett.web.metrics import MetricController
from paqett.web.oauth import OAuthController
from paqett.web.sign_in import SignInController
from paqett.web.telemetry import TelemetryController
from paqett.web.usage import UsageController

_FLUSH_TIMEOUT_S = 10.0
_seconds = Histogram(
    "paqett_http_request_seconds", "From request to answer.", ["method", "route", "status"]
)
_HANDLERS: Any = {
    Problem: problems.from_problem,
    HTTPException: problems.from_http,
    QueryCanceled: problems.from_timeout,
    Exception: problems.from_anything,
}


def _openapi(settings: Settings) -> OpenAPIConfig:
    schemes = {
        SCHEME: SecurityScheme(
            type="http", scheme="bearer", description="An API key: `pqt_…`, with its scopes."
        ),
        SESSION_SCHEME: SecurityScheme(
            type="apiKey", name=cookie_name(settings), security_scheme_in="cookie",
            description=f"A signed-in person; writes carry the header `{CSRF_HEADER}`.",
        ),
        DEVICE_SCHEME: SecurityScheme(
            type="http", scheme="basic", description="A device: its id and its secret."
        ),
    }  # fmt: skip
    return OpenAPIConfig(
        title="Paqett",
        version=__version__,
        path="/schema",
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        components=Components(security_schemes=schemes),  # type: ignore[arg-type]
    )


def _measured(app: ASGIApp) -> ASGIApp:
    """Count every request by the route's template, never by the path itself."""

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            route = str(scope.get("path_template") or "none")
            taken = time.perf_counter() - started
            _seconds.labels(scope["method"], route, status).observe(taken)  # type: ignore[typeddict-item]

    return measure


def create_app(services: Services) -> Litestar:
    """The public API."""
    app = Litestar(
        route_handlers=[
            DeviceController,
            MetricController,
            TelemetryController,
            UsageController,
            SignInController,
            OAuthController,
            AccountController,
            SessionController,
            ApiKeyController,
            BillingController,
            get_plan,
            stripe_webhook,
            healthz,
            readyz,
            metrics,
        ],
        openapi_config=_openapi(services.settings),
        exception_handlers=_HANDLERS,
        middleware=[_measured],
        request_max_body_size=1_048_576,
        logging_config=None,
    )
    app.state.services, app.state.trusted = services, False
    settings = services.settings
    writer = Writer(settings.database, "api ingest", Directory(services.plans), _FLUSH_TIMEOUT_S)
    app.state.door = Door(writer)
    return app


def create_ops_app(services: Services) -> Litestar:
    """The operator's own listener."""
    app = Litestar(
        route_handlers=[healthz, readyz, metrics],
        openapi_config=None,
        exception_handlers=_HANDLERS,
        logging_config=None,
    )
    app.state.services, app.state.trusted = services, True
    return app


def check_listener(http: Http) -> None:
    """Raises `ConfigurationError` for plain HTTP beyond loopback that nobody asked for."""
    if http.host not in LOOPBACK and not http.tls_cert_file and not http.allow_plain:
        raise ConfigurationError(
            f"http.host is {http.host}: HTTP without TLS beyond this machine needs"
            " http.allow_plain = true (or set http.tls_cert_file and http.tls_key_file)"
        )


def check_ops_listener(settings: Settings) -> None:
    """Raises `ConfigurationError` where the operator's listener, which asks nobody who they are,
    would be open beyond this machine without anybody having asked for it."""
    ops = settings.ops
    if ops.port and ops.host not in LOOPBACK and not settings.http.allow_plain:
        raise ConfigurationError(
            f"ops.host is {ops.host}: it speaks plain HTTP and asks for no token; keep it on"
            " loopback, or set http.allow_plain = true"
        )


class _Server(uvicorn.Server):
    """uvicorn whose signals are ours: the process decides when to stop."""

    def install_signal_handlers(self) -> None:
        """None."""

    def capture_signals(self) -> Any:
        """None."""
        return nullcontext()


def _server(app: Litestar, host: str, port: int, http: Http | None = None) -> _Server:
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, lifespan="off",
        http="httptools", loop="none", server_header=False, timeout_graceful_shutdown=5,
        proxy_headers=False,
        ssl_certfile=(http.tls_cert_file or None) if http else None,
        ssl_keyfile=(http.tls_key_file or None) if http else None,
    )  # fmt: skip
    return _Server(config)


async def serve(services: Services, stop: asyncio.Event) -> None:
    """Serve until `stop`; requests in hand are answered first."""
    settings = services.settings
    check_listener(settings.http)
    check_ops_listener(settings)
    app = create_app(services)
    servers = [_server(app, settings.http.host, settings.http.port, settings.http)]
    if settings.ops.port:
        servers.append(_server(create_ops_app(services), settings.ops.host, settings.ops.port))
    running = [asyncio.create_task(server.serve()) for server in servers]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    await app.state.door.close()
