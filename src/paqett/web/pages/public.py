"""What anybody may read: the front page, and the words for errors."""

from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State

from paqett import db
from paqett.app import Services
from paqett.billing import overview
from paqett.web.pages import access, view

_Request = Request[Any, Any, State]


@get("/", **access.public())
async def front(request: _Request) -> Response[Any]:
    """What Paqett is and costs; people who are signed in go on to their own."""
    if access.person_of(request):
        return view.done(request, view.HOME)
    services: Services = request.app.state.services
    prices = await overview.shown_prices(services.stripe, services.plans)
    async with db.transaction(services.pool) as conn:
        offers = await overview.offers(
            conn, services.plans, services.first_plan, prices, billing=services.stripe is not None
        )
    return view.render(request, "front.html", offers=offers)


HANDLERS = (front,)
