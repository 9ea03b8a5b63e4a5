"""`/api/v1/grafana`: the account's read-only SQL login, and the files Grafana is set up with."""

from typing import Any

from litestar import Controller, MediaType, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from psycopg.conninfo import conninfo_to_dict

from paqett import dashboards, db, grafana
from paqett.app import Services
from paqett.children import LOOPBACK
from paqett.errors import NotFound
from paqett.grafana import Login, Place
from paqett.principals import Principal
from paqett.settings import Settings
from paqett.web.auth import needs, principal_of
from paqett.web.devices import KeyLimited

# it reads all telemetry, and goes on doing so when the key is gone
_LOGIN = needs("devices:write", "telemetry:read")
_Request = Request[Any, Any, State]
_TYPES = {"json": MediaType.JSON, "yaml": "application/yaml", "zip": "application/zip"}


def _of_whole_account(request: _Request) -> Principal:
    """Raises `KeyLimited` for a key with an allow-list: the login reads every device."""
    principal = principal_of(request)
    if principal.device_ids is not None:
        raise KeyLimited("This API key is limited to certain devices; the SQL login reads all.")
    return principal


def place(settings: Settings) -> Place:
    """Where Grafana finds the database: as set, or as we find it ourselves."""
    own = settings.grafana
    known = conninfo_to_dict(settings.database.url)
    host = own.host or str(known.get("host") or "localhost")
    port = own.port or int(known.get("port") or 5432)
    sslmode = own.sslmode or ("disable" if host in LOOPBACK else "verify-full")
    return Place(host, port, sslmode)


def _values(settings: Settings, database: str, user: str | None) -> dict[str, str]:
    where = place(settings)
    values = {
        "PAQETT_URL": settings.public_url,
        "PAQETT_SQL_HOST": where.host,
        "PAQETT_SQL_PORT": str(where.port),
        "PAQETT_SQL_SSLMODE": where.sslmode,
        "PAQETT_SQL_DATABASE": database,
    }
    return values if user is None else {**values, "PAQETT_SQL_USER": user}


class GrafanaController(Controller):
    """Off by default; a login sees its account's views in schema `grafana` and nothing else."""

    path = "/api/v1/grafana"
    tags = ["grafana"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(problems=(409, 501), **_LOGIN)
    async def create_login(self, request: _Request) -> Login:
        """Make the SQL login, or give it a new password; it is in this answer and nowhere else."""
        services: Services = request.app.state.services
        account = _of_whole_account(request).account
        settings = services.settings
        async with db.transaction(services.pool) as conn:
            return await grafana.create(
                conn, account, services.plans[account.plan], place(settings),
                settings.grafana.query_limit_s,
            )  # fmt: skip

    @delete(problems=(404,), **_LOGIN)
    async def drop_login(self, request: _Request) -> None:
        """End the SQL login and its sessions."""
        services: Services = request.app.state.services
        account = _of_whole_account(request).account
        async with db.transaction(services.pool) as conn:
            if not await grafana.drop(conn, account.id):
                raise NotFound("The account has no SQL login.")

    @get("/{file:str}", **needs("account:read"))
    async def file(self, request: _Request, file: FromPath[str]) -> Response[bytes]:
        """A data source or dashboard with the account's values, or `paqett-grafana.zip` of all."""
        services: Services = request.app.state.services
        account = principal_of(request).account
        async with db.transaction(services.pool) as conn:
            login = await grafana.find(conn, account)
        user = None if login is None else login.role
        if user is None and dashboards.needs_login(file) and file in dashboards.shipped():
            raise NotFound("The account has no SQL login: POST /api/v1/grafana makes one.")
        values = _values(services.settings, login.database if login else "", user)
        body = (
            dashboards.archive(values, with_sql=user is not None)
            if file == dashboards.ARCHIVE
            else dashboards.read(file, values)
        )
        return Response(
            body,
            media_type=_TYPES[file.rpartition(".")[2]],
            headers={"Content-Disposition": f'attachment; filename="{file}"'},
        )
