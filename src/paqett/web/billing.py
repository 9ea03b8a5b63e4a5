"""`/api/v1/plan`, `/api/v1/billing` and Stripe's webhook."""

from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.params import JSONBody

from paqett import db, throttle
from paqett.app import Services
from paqett.billing import checkout, overview, webhook
from paqett.billing.client import Stripe
from paqett.billing.overview import Overview
from paqett.billing.problems import BillingNotSetUp
from paqett.db import Connection
from paqett.errors import Invalid
from paqett.web import auth

_Request = Request[Any, Any, State]
_EVENT: dict[str, Any] = {
    "required": True,
    "description": "An event of Stripe's API v1, signed by the header `Stripe-Signature`.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The plan to buy."""

    plan: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Elsewhere(msgspec.Struct):
    """Where the browser is to go next: a page of Stripe's."""

    url: str


class Received(msgspec.Struct):
    """`duplicate`: the event came before, and nothing more was done."""

    duplicate: bool


def _stripe(request: _Request) -> Stripe:
    services: Services = request.app.state.services
    if services.stripe is None:
        raise BillingNotSetUp
    return services.stripe


def _transaction(services: Services) -> checkout.Transaction:
    def begin() -> AbstractAsyncContextManager[Connection]:
        return db.transaction(services.pool)

    return begin


@get("/api/v1/plan", tags=["plans"], **auth.needs("account:read"))
async def get_plan(request: _Request) -> Overview:
    """What the plan allows, what was bought and until when, and what can be bought."""
    services: Services = request.app.state.services
    account = auth.principal_of(request).account
    prices = await overview.shown_prices(services.stripe, services.plans)
    async with db.transaction(services.pool) as conn:
        sells = services.stripe is not None
        return await overview.overview(conn, account, services.plans, prices, billing=sells)


class BillingController(Controller):
    """To Stripe's pages; for the person, not for keys."""

    path = "/api/v1/billing"
    tags = ["plans"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post("/checkout", status_code=200, problems=(404, 409), **auth.needs_session())
    async def begin_checkout(self, request: _Request, data: JSONBody[Wanted]) -> Elsewhere:
        """Buy a plan: where to pay. 409 while a Checkout is open or a subscription lives."""
        stripe = _stripe(request)
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        plan = services.plans.get(data.plan)
        if plan is None:
            raise Invalid("There is no such plan.", field="plan")
        await _hit(services, account.id)
        place = checkout.places(services.settings.public_url)
        url = await checkout.checkout(
            _transaction(services), stripe, account, plan, place, services.clock()
        )
        return Elsewhere(url)

    @post(
        "/portal", status_code=200, problems=(404, 409), **auth.needs_session(while_disabled=True)
    )
    async def open_portal(self, request: _Request) -> Elsewhere:
        """Change, pay or cancel what was bought: where to."""
        stripe = _stripe(request)
        services: Services = request.app.state.services
        account_id = auth.principal_of(request).account.id
        await _hit(services, account_id)
        place = checkout.places(services.settings.public_url)
        url = await checkout.portal(_transaction(services), stripe, account_id, place)
        return Elsewhere(url)


async def _hit(services: Services, account_id: int) -> None:
    async with db.transaction(services.pool) as conn:
        await throttle.hit(conn, throttle.BILLING_ACCOUNT, str(account_id), services.clock())


# no guard: the signature is Stripe's proof, and a browser has none to send
@post(
    "/hooks/stripe", status_code=200, tags=["plans"], security=[{}], problems=(400, 404),
    request_body=_EVENT,
)  # fmt: skip
async def stripe_webhook(request: _Request) -> Received:
    """Stripe's events, signed: noted once, answered at once, and worked by a job."""
    stripe = _stripe(request)
    services: Services = request.app.state.services
    body = await request.body()
    stripe.verify(body, request.headers.get("stripe-signature", ""))
    event = webhook.read(body)
    async with db.transaction(services.pool) as conn:
        new = await webhook.take(conn, event, services.clock())
    return Received(duplicate=not new)
