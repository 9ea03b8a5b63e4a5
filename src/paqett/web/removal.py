"""Deleting a range of a device's readings."""

import time
from datetime import datetime
from typing import Annotated, Any

from litestar import Request, Response
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from paqett import db, devices
from paqett.app import Services
from paqett.erasure import sweep
from paqett.erasure.sweep import Reach
from paqett.errors import Invalid
from paqett.web.asked import metric_name
from paqett.web.auth import principal_of
from paqett.web.devices import allowed
from paqett.web.times import moment, words

_PATIENCE_S = 10.0
GOES_ON = {202: ResponseSpec(None, description="A job goes on deleting.")}
From = Annotated[
    str,
    QueryParameter(name="from", description="As for GET; required, since nothing comes back."),
]
To = Annotated[str, QueryParameter(name="to", description="As for GET; required.")]


async def remove(
    request: Request[Any, Any, State], device_id: str, metrics: str | None, from_: str, to: str
) -> Response[None]:
    """Delete what lies in the range, for as long as a request may take; a job does the rest.

    Raises `NotFound`, and `Invalid` for a range that is not given or ends before it begins.
    """
    services: Services = request.app.state.services
    principal = principal_of(request)
    allowed(principal, device_id)
    async with db.transaction(services.pool) as conn:
        await devices.get(conn, principal.account, device_id)
    start, end = _range(from_, to, services.clock())
    names = None if metrics is None else _names(metrics)
    async with db.transaction(services.pool) as conn:
        chosen = await sweep.begin_removal(conn, principal.account, device_id, names)
    account_id, deadline = principal.account.id, time.monotonic() + _PATIENCE_S
    reach: Reach | None = Reach(start)
    while chosen and reach is not None:
        async with db.transaction(services.pool) as conn:
            reach = await sweep.erase_some(conn, account_id, chosen, reach, end)
            if reach is not None and time.monotonic() > deadline:
                await sweep.remove_later(conn, account_id, device_id, chosen, start, end)
                return Response(None, status_code=202)
    return Response(None, status_code=204)


def _range(from_: str, to: str, now: datetime) -> tuple[datetime, datetime]:
    start, end = _required(from_, now, "from"), _required(to, now, "to")
    if start > end:
        raise Invalid("from lies after to.", field="from")
    return start, end


def _required(text: str, now: datetime, field: str) -> datetime:
    if not text:
        raise Invalid(f"{field} is required: say which readings go.", field=field)
    return moment(text, now, field)


def _names(metrics: str) -> list[str]:
    """Raises `Invalid` for a list that names none: left out, it means all."""
    names = words(metrics)
    if not names:
        raise Invalid("metrics is empty: name some, or leave it out for all.", field="metrics")
    return [metric_name(name) for name in names]
