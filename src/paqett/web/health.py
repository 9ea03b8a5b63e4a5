"""`/healthz`, `/readyz`, `/metrics`: for the load balancer, and for the operator."""

import asyncio
import hmac
import time
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from paqett import __version__, db, doctor, migrate, ops, retention
from paqett.app import Services
from paqett.children import LOOPBACK
from paqett.errors import NotFound, PaqettError
from paqett.settings import Settings
from paqett.shared import Shared

_Request = Request[Any, Any, State]
_PATIENCE_S = 5.0
_KEPT_S = 1.0


def _operator(request: _Request) -> bool:
    """Whether details may be shown: our own listener, the operator's token, or a setting."""
    settings: Settings = request.app.state.services.settings
    ops = settings.ops
    if request.app.state.trusted or (ops.open_on_api and _for_this_machine(settings)):
        return True
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    return bool(ops.token) and hmac.compare_digest(sent.encode(), ops.token.encode())


def _for_this_machine(settings: Settings) -> bool:
    """Whether the API is reached from here alone, by no proxy of this machine's either."""
    http = settings.http
    return http.host in LOOPBACK and not http.trusted_proxies and not settings.behind_tls


@get("/healthz", media_type=MediaType.TEXT, include_in_schema=False)
async def healthz() -> str:
    """The process answers; says nothing of the database."""
    return "ok\n"


class Readiness:
    """What strangers are told: the database is asked once a second, however many want to know."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._shared = Shared(self._ask)
        self._ready, self._asked_at = False, -_KEPT_S

    async def now(self) -> bool:
        """Whether requests can be answered, as of the last second; a database that hangs cannot."""
        if time.monotonic() - self._asked_at >= _KEPT_S:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._ready = await self._shared.now()
            except TimeoutError:  # all wait for one connection, and it may be its host that is gone
                self._ready = False
            self._asked_at = time.monotonic()
        return self._ready

    async def _ask(self) -> bool:
        try:
            async with db.transaction(self._services.pool, timeout_s=_PATIENCE_S) as conn:
                ops.note_schema(await migrate.require_current(conn))
        except PaqettError:
            return False
        return True


@get("/readyz", include_in_schema=False)
async def readyz(request: _Request) -> Response[bytes]:
    """200 when requests can be answered; what is behind it for the operator."""
    services: Services = request.app.state.services
    if not _operator(request):
        readiness: Readiness = request.app.state.readiness
        return _told({}, ready=await readiness.now())
    try:
        async with db.transaction(services.pool, timeout_s=_PATIENCE_S) as conn:
            newer = await migrate.require_current(conn)
            ops.note_schema(newer)
            return _told(await _details(services, conn) | {"schema_newer": newer}, ready=True)
    except PaqettError as error:
        return _told({"reason": str(error)}, ready=False)


def _told(more: dict[str, Any], *, ready: bool) -> Response[bytes]:
    body = {"status": "ready" if ready else "not ready"} | more
    return Response(
        msgspec.json.encode(body), status_code=200 if ready else 503, media_type=MediaType.JSON
    )


async def _details(services: Services, conn: db.Connection) -> dict[str, Any]:
    now = services.clock()
    return {
        "version": __version__,
        "schema": list(migrate.migrations())[-1],
        "timescaledb": await doctor.edition(conn),
        "tiers": [
            {
                "name": state.name,
                "retention_days": state.retention.days,
                "retention_by": state.retention_by,
                "oldest": state.oldest,
                "overdue": state.overdue(now),
                "policies": state.jobs,
            }
            for state in await retention.states(conn)
        ],
    }


@get("/metrics", include_in_schema=False)
async def metrics(request: _Request) -> Response[bytes]:
    """Prometheus metrics of this process. Raises `NotFound` for strangers."""
    if not _operator(request):
        raise NotFound("Not found.")
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
