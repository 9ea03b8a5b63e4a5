"""`/api/v1/account/exports`: Export All My Data, for the signed-in person."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from paqett import db
from paqett.app import Services
from paqett.exports import records
from paqett.exports.records import Export, Form, Page
from paqett.web import auth, files

_Request = Request[Any, Any, State]
_ARCHIVE = {
    200: ResponseSpec(bytes, media_type="application/zip", description="The archive."),
    206: ResponseSpec(bytes, media_type="application/zip", description="A part of it."),
}


class ExportIn(msgspec.Struct, forbid_unknown_fields=True):
    """The form of the archive's files."""

    format: Form = "ndjson"


class ExportController(Controller):
    """Everything that is kept of the account, in one archive; disabled accounts may do it too."""

    path = "/api/v1/account/exports"
    tags = ["account"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(status_code=202, problems=(409,), **auth.needs_session(recent=True, while_disabled=True))
    async def request_export(
        self, request: _Request, data: JSONBody[ExportIn | None] = None
    ) -> Export:
        """Have an archive made: of NDJSON files, or of CSV. A notice tells when it is ready.

        409 while one is being made, 429 where the plan's exports of the day are used up.
        """
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        plan, asked = services.plans[account.plan], data or ExportIn()
        async with db.transaction(services.pool) as conn:
            return await records.request(conn, account, plan, asked.format, services.clock())

    @get(**auth.needs_session(while_disabled=True))
    async def list_exports(
        self,
        request: _Request,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """Newest first."""
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        async with db.transaction(services.pool) as conn:
            return await records.list_exports(conn, account.id, limit=limit, cursor=cursor)

    @get("/{export_id:int}", **auth.needs_session(while_disabled=True))
    async def get_export(self, request: _Request, export_id: FromPath[int]) -> Export:
        """How far it is, and until when its archive can be fetched."""
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        async with db.transaction(services.pool) as conn:
            return await records.get(conn, account.id, export_id)

    @get(
        "/{export_id:int}/download",
        responses=_ARCHIVE,
        problems=(409, 410, 416),
        **auth.needs_session(recent=True, while_disabled=True),
    )
    async def download_export(self, request: _Request, export_id: FromPath[int]) -> Stream:
        """The archive, whole or the part that `Range` asks for; for whoever just proved it is them.

        409 until it is ready, 410 once it is removed.
        """
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        async with db.transaction(services.pool) as conn:
            export = await records.get_ready(conn, account.id, export_id, services.clock())
        path = records.file_of(services.settings.export_dir, account.id, export.id)
        name = f"paqett-export-{export.created_at:%Y-%m-%d}.zip"
        return await files.download(request, path, name, export.sha256 or "", "application/zip")
