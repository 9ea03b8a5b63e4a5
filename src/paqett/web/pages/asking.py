"""What a page asks: the API's own handlers, in the same process.

So pages and API cannot drift apart: what a handler checks, limits, writes and tells holds for both.
"""

import inspect
from typing import Any

from litestar import Request
from litestar.handlers import HTTPRouteHandler

from paqett.web import auth


async def ask(request: Request[Any, Any, Any], handler: HTTPRouteHandler, **given: Any) -> Any:
    """What `handler` gives the signed-in person, with the conditions it declares.

    `handler` is a function or a controller's method; what is not given has the handler's default.
    Raises what the handler raises.
    """
    if "session" in handler.opt or "scopes" in handler.opt:
        auth.allow(auth.principal_of(request), handler.opt, request.app.state.services)
    asked: Any = handler.fn
    is_method = next(iter(inspect.signature(asked).parameters)) == "self"
    return await (asked(None, request, **given) if is_method else asked(request, **given))
