"""Answering a query for telemetry: one page, or the whole range as a stream of pages.

A stream is read page by page, each in a transaction of its own: a slow client holds neither a
connection nor a snapshot, memory stays flat, and a move between tiers may begin or end meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.response import Stream

from paqett import log
from paqett.app import Services
from paqett.principals import Principal
from paqett.readings import cursor, read
from paqett.readings.query import Page, Position, Query
from paqett.readings.source import look
from paqett.web import tables
from paqett.web.asked import DEFAULT_LIMIT, Asked, Wanted, settle
from paqett.web.auth import principal_of
from paqett.web.devices import allowed
from paqett.web.gone import while_there

_logger = log.get("web")
_STREAMED_ROWS = 20_000
_SLACK = 1.2  # the next page may last a little longer
HEADERS = {
    "Next-Cursor": "The next page's cursor, where a page of CSV or NDJSON is not the last.",
    "Paqett-Bucket": "The bucket in use: as asked for, or as `points` chose it.",
}
_Request = Request[Any, Any, State]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reading (`value`), or a bucket with the aggregates that were asked for.

    `time` is the reading's, or the bucket's start. A boolean metric's avg is the share of true, its
    sum and percentiles count true as 1; its min, max, first and last are booleans. `value` repeats
    the aggregate where only one was asked for.
    """

    time: datetime
    device: str
    metric: str
    value: float | bool | str | None = None
    avg: float | None = None
    min: float | bool | None = None
    max: float | bool | None = None
    sum: float | None = None
    count: int | None = None
    first: float | bool | str | None = None
    last: float | bool | str | None = None
    p50: float | None = None
    p95: float | None = None


class Rows(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Flat rows; `from` and `to` as clamped to what may be read."""

    items: list[Row]
    next_cursor: str | None
    from_: datetime
    to: datetime


class _Answer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The same, with rows of exactly the columns asked for."""

    items: list[msgspec.Struct]
    next_cursor: str | None
    from_: datetime
    to: datetime


class _Reader(msgspec.Struct, frozen=True):
    """Reads pages for one request."""

    services: Services
    principal: Principal
    now: datetime

    async def page(self, query: Query, limit: int, after: Position | None) -> Page:
        account = self.principal.account
        async with self.services.readers.statements() as conn:
            if after is not None:  # a stream may last long enough for a move
                account = await look(conn, account)
            return await read.read_page(conn, account, query, self.now, limit, after)


async def answer(request: _Request, asked: Asked, media_type: str | None = None) -> Response[Any]:
    """The answer in the form the client accepts, or in the one that is given.

    Raises `NotFound` for a device the key may not see, `Invalid`, and `QueryCanceled` at the
    statement timeout; once a stream has begun, whatever goes wrong breaks the connection.
    """
    services: Services = request.app.state.services
    principal = principal_of(request)
    for device_id in asked.devices:
        allowed(principal, device_id)
    reader = _Reader(services, principal, services.clock())
    media_type = media_type or tables.accepted(request)
    wanted = settle(asked, reader.now)
    streamed = media_type != tables.JSON and asked.limit is None
    limit = _STREAMED_ROWS if streamed else asked.limit or DEFAULT_LIMIT
    query = wanted.query
    if streamed and media_type == tables.CSV:
        query = msgspec.structs.replace(query, packed=True)
    page: Page = await while_there(request, reader.page(query, limit, wanted.after))
    if streamed:
        return _stream(reader, query, page, media_type)
    return _whole(wanted, page, media_type)


def _headers(page: Page, **more: str | None) -> dict[str, str]:
    given = {"Paqett-Bucket": page.bucket.text if page.bucket else None, **more}
    return {name: value for name, value in given.items() if value is not None}


def _whole(wanted: Wanted, page: Page, media_type: str) -> Response[Any]:
    query, following = wanted.query, None
    if page.last is not None:
        bucket = page.bucket.text if page.bucket else None
        following = cursor.write(wanted.asked, query.from_, query.to, bucket, page.last)
    headers = _headers(page)
    if media_type == tables.JSON:
        rows = tables.items(query.columns, page.rows)
        to = max(page.from_, query.to)
        body = msgspec.json.encode(_Answer(rows, following, page.from_, to))
    else:
        body = tables.encode(media_type, query.columns, page.rows)
        headers |= _headers(page, **{"Next-Cursor": following})
    return Response(body, media_type=tables.content_type(media_type), headers=headers)


def _stream(reader: _Reader, query: Query, first: Page, media_type: str) -> Stream:
    return Stream(
        _chunks(reader, query, first, media_type),
        media_type=tables.content_type(media_type),
        headers=_headers(first),
    )


async def _chunks(
    reader: _Reader, query: Query, page: Page, media_type: str
) -> AsyncIterator[bytes]:
    """The heading, then page after page; the next is read while this one is sent."""
    settled = msgspec.structs.replace(query, bucket=page.bucket, points=None)
    yield tables.heading(media_type, query.columns)
    while page.last is not None:
        settled = msgspec.structs.replace(settled, pace=page.span * _SLACK)
        work = reader.page(settled, _STREAMED_ROWS, page.last)
        # a task of its own: it is cancelled once, and has time to cancel its query
        following = asyncio.create_task(work)
        try:
            await asyncio.sleep(0)
            yield _lines(media_type, query, page)
            page = await asyncio.shield(following)
        except Exception as error:
            _logger.warning("stream broken", error=str(error))
            raise
        finally:
            following.cancel()
    yield _lines(media_type, query, page)


def _lines(media_type: str, query: Query, page: Page) -> bytes:
    if page.packed is not None:
        return tables.packed_lines(page.packed, page.labels)
    return tables.lines(media_type, query.columns, page.rows)
