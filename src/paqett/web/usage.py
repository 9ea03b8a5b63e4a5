"""`/api/v1/usage`: what is used of the plan, and what was refused."""

from typing import Annotated, Any

from litestar import Controller, Request, get
from litestar.datastructures import State
from litestar.params import FromQuery, QueryParameter

from paqett import db, rejections, usage
from paqett.app import Services
from paqett.rejections import Page
from paqett.usage import Usage
from paqett.web.auth import needs, principal_of
from paqett.web.devices import PlainText, allowed


class UsageController(Controller):
    """Usage equals what is stored: both are counted in one transaction."""

    path = "/api/v1/usage"
    tags = ["usage"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**needs("account:read"))
    async def usage(
        self,
        request: Request[Any, Any, State],
        days: Annotated[int, QueryParameter(ge=0, le=400)] = 30,
        months: Annotated[int, QueryParameter(ge=0, le=36)] = 12,
    ) -> Usage:
        """Today against the plan, by device; days before, months with this. API requests by key."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        account = principal.account
        devices = None if principal.device_ids is None else sorted(principal.device_ids)
        key = None if devices is None else principal.key_id
        plan = services.plans[account.plan]
        async with db.transaction(services.pool) as conn:
            return await usage.today(
                conn, account, plan, services.clock(), days, devices, key, months
            )

    @get("/rejections", **needs("account:read"))
    async def rejections(
        self,
        request: Request[Any, Any, State],
        device: PlainText = None,
        code: PlainText = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        cursor: FromQuery[str | None] = None,
    ) -> Page:
        """Refused points by device, hour and code, newest first, with examples of 7 days."""
        services: Services = request.app.state.services
        principal = principal_of(request)
        devices = None if principal.device_ids is None else sorted(principal.device_ids)
        if device is not None:
            allowed(principal, device)
            devices = [device]
        async with db.transaction(services.pool) as conn:
            return await rejections.list_rejections(
                conn, principal.account, devices=devices, code=code, limit=limit, cursor=cursor
            )
