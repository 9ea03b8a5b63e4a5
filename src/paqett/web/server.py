"""The Litestar applications, and the process that serves them."""

import asyncio
import copy
import gc
from functools import cache
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler
from psycopg.errors import QueryCanceled

from paqett import certificates, log
from paqett.app import Services, until_stopped
from paqett.billing.client import check_receiving
from paqett.errors import Problem
from paqett.flush.door import Door
from paqett.flush.writer import Writer
from paqett.readings.directory import Directory
from paqett.web import assets as shipped
from paqett.web import edge, openapi, problems
from paqett.web.account import AccountController, SessionController
from paqett.web.alerts import AlertController, AlertRuleController
from paqett.web.api_keys import ApiKeyController
from paqett.web.billing import BillingController, get_plan, stripe_webhook
from paqett.web.broker import Judge, broker_asks
from paqett.web.channels import ChannelController
from paqett.web.deletion import DeletionController
from paqett.web.devices import DeviceController
from paqett.web.exports import ExportController
from paqett.web.exposure import check_listener, check_ops_listener
from paqett.web.grafana import GrafanaController
from paqett.web.health import Readiness, healthz, metrics, readyz
from paqett.web.listener import listen, renew
from paqett.web.live import Hub
from paqett.web.meter import Meter
from paqett.web.metrics import MetricController
from paqett.web.notices import NoticeController, PreferenceController
from paqett.web.oauth import OAuthController
from paqett.web.pages import routes, view
from paqett.web.rate import Rates
from paqett.web.session_cookie import cookie_name
from paqett.web.sign_in import SignInController
from paqett.web.snippets import SnippetController
from paqett.web.streams import StreamController
from paqett.web.telemetry import TelemetryController
from paqett.web.unsubscribe import ask_unsubscribe, unsubscribe
from paqett.web.usage import UsageController

_FLUSH_TIMEOUT_S = 10.0
_logger = log.get("web")
_HANDLERS: Any = {
    Problem: problems.from_problem,
    HTTPException: problems.from_http,
    QueryCanceled: problems.from_timeout,
    RecursionError: problems.from_unreadable,
    UnicodeDecodeError: problems.from_unreadable,
    Exception: problems.from_anything,
}

_ROUTES: list[ControllerRouterHandler] = [
    DeviceController,
    MetricController,
    SnippetController,
    TelemetryController,
    StreamController,
    UsageController,
    SignInController,
    OAuthController,
    AccountController,
    DeletionController,
    SessionController,
    ExportController,
    ApiKeyController,
    BillingController,
    get_plan,
    stripe_webhook,
    broker_asks,
    NoticeController,
    AlertRuleController,
    AlertController,
    ChannelController,
    PreferenceController,
    ask_unsubscribe,
    unsubscribe,
    GrafanaController,
    healthz,
    readyz,
    metrics,
    shipped.static,
    *routes.PAGES,
]


@cache
def _laid_out(session_cookie: str) -> Litestar:
    """The routes, which know no services: laying them out takes longer than most tests."""
    return Litestar(
        route_handlers=_ROUTES,
        template_config=view.template_config(),
        openapi_config=openapi.config(session_cookie),
        exception_handlers=_HANDLERS,
        request_max_body_size=1_048_576,
        logging_config=None,
    )


def create_app(services: Services) -> Litestar:
    """The public API. Applications of one process share their routes and nothing else."""
    app = copy.copy(_laid_out(cookie_name(services.settings)))
    app.state = State()
    app.state.services, app.state.trusted = services, False
    app.state.rates, app.state.meter = Rates(services.pool), Meter(services.pool)
    # around everything, so that routes that do not exist are answered alike
    app.asgi_handler = edge.wrap(app.asgi_handler, services, app.state.meter)
    settings = services.settings
    writer = Writer(settings.database, "api ingest", Directory(services.plans), _FLUSH_TIMEOUT_S)
    app.state.door = Door(writer)
    app.state.hub = Hub(settings.database)
    app.state.broker, app.state.readiness = Judge(services), Readiness(services)
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
    app.asgi_handler = edge.wrap(app.asgi_handler, services)
    return app


async def serve(services: Services, stop: asyncio.Event) -> None:
    """Serve until `stop`; requests in hand are answered first."""
    settings = services.settings
    check_listener(settings.http)
    if settings.stripe.secret_key:
        check_receiving(settings.stripe)
    check_ops_listener(settings)
    if lacking := shipped.missing():
        _logger.warning("pages do without scripts that `make setup` brings", missing=lacking)
    app = create_app(services)
    # routes and schemas stay, and an answer's rows are part of no cycle: look rarely
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    servers = [listen(app, settings, settings.http.host, settings.http.port, tls=True)]
    if settings.ops.port:
        ops = create_ops_app(services)
        servers.append(listen(ops, settings, settings.ops.host, settings.ops.port))
    counted = asyncio.Event()
    counting = asyncio.create_task(app.state.meter.run(counted))
    running = [asyncio.create_task(server.serve()) for server in servers]
    with certificates.hang_ups() as hung_up:
        renewing = asyncio.create_task(renew(servers[0], settings.http, hung_up))
        await until_stopped(running, stop)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
    await app.state.hub.close()  # or its streams would keep the servers from ending
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    counted.set()
    await counting
    await app.state.door.close()
