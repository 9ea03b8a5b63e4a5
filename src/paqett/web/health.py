"""`/healthz`, `/readyz`, `/metrics`: for the load balancer, and for the operator."""

import hmac
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

_Request = Request[Any, Any, State]


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


@get("/readyz", include_in_schema=False)
async def readyz(request: _Request) -> Response[bytes]:
    """200 when requests can be answered; what is behind it for the operator."""
    services: Services = request.app.state.services
    body: dict[str, Any] = {"status": "ready"}
    status = 200
    try:
        async with db.transaction(services.pool, timeout_s=5) as conn:
            newer = await migrate.require_current(conn)
            ops.note_schema(newer)
            if _operator(request):
                body |= await _details(services, conn) | {"schema_newer": newer}
    except PaqettError as error:
        status, body = 503, {"status": "not ready"}
        if _operator(request):
            body["reason"] = str(error)
    return Response(msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON)


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
