"""`/api/v1/notices` and the preferences: what people are told, and what of it is mailed."""

from typing import Annotated, Any

from litestar import Controller, Request, get, put
from litestar.datastructures import State
from litestar.params import FromQuery, JSONBody, QueryParameter

from paqett import db, notices
from paqett.notice_events import Kind
from paqett.notices import Page, Preferences, PreferencesIn
from paqett.web.auth import needs, needs_session, principal_of

_PREFERENCES = needs_session()
_Request = Request[Any, Any, State]


class NoticeController(Controller):
    """Notices of the account."""

    path = "/api/v1/notices"
    tags = ["notices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**needs("account:read"))
    async def list_notices(
        self,
        request: _Request,
        kind: FromQuery[Kind | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """Newest first. A key limited to certain devices sees what is about these."""
        principal = principal_of(request)
        devices = None if principal.device_ids is None else sorted(principal.device_ids)
        async with db.transaction(request.app.state.services.pool) as conn:
            return await notices.list_notices(
                conn, principal.account.id, kind=kind, devices=devices, limit=limit, cursor=cursor
            )


class PreferenceController(Controller):
    """Which kinds of notices are mailed: for the signed-in person, not for keys."""

    path = "/api/v1/account/notification-preferences"
    tags = ["notices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**_PREFERENCES)
    async def get_preferences(self, request: _Request) -> Preferences:
        """Every kind; security is always mailed."""
        async with db.transaction(request.app.state.services.pool) as conn:
            return await notices.preferences(conn, principal_of(request).account.id)

    @put(**_PREFERENCES)
    async def put_preferences(
        self, request: _Request, data: JSONBody[PreferencesIn]
    ) -> Preferences:
        """Switch mails of some kinds on or off; a kind that is left out stays as it is."""
        async with db.transaction(request.app.state.services.pool) as conn:
            return await notices.set_preferences(conn, principal_of(request).account.id, data)
