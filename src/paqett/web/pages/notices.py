"""`/notices`: everything the account's person was told."""

from typing import Annotated, Any, get_args

from litestar import Request, get
from litestar.datastructures import State
from litestar.params import FromQuery, QueryParameter
from litestar.response import Template

from paqett import notice_events
from paqett.notice_events import Kind
from paqett.notices import Notice
from paqett.web.notices import NoticeController
from paqett.web.pages import access, view
from paqett.web.pages.asking import ask

_Request = Request[Any, Any, State]
_A_PAGE = 50
KINDS: tuple[str, ...] = get_args(Kind)


def described(notice: Notice, time_zone: str) -> notice_events.Described:
    """The notice in words, its times in the person's own zone."""
    return notice_events.describe(notice.event, notice.data, time_zone)


@get("/notices", **access.person())
async def notices(
    request: _Request,
    kind: FromQuery[Kind | None] = None,
    cursor: Annotated[str | None, QueryParameter(max_length=20)] = None,
) -> Template:
    """Newest first."""
    page = await ask(
        request, NoticeController.list_notices, kind=kind, limit=_A_PAGE, cursor=cursor
    )
    zone = access.profile_of(request).time_zone
    told = [(notice, described(notice, zone)) for notice in page.items]
    return view.render(
        request, "notices.html", told=told, kinds=KINDS, kind=kind, cursor=cursor,
        next_cursor=page.next_cursor,
    )  # fmt: skip


HANDLERS = (notices,)
