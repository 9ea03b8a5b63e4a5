"""A client that goes away takes its query with it."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from litestar import Request
from litestar.datastructures import State

from paqett.errors import Problem


class ClientGone(Problem):
    """Nobody is there to be answered; the status is for our own metrics."""

    status = 499
    code = "client_gone"
    title = "Client gone"


async def while_there(request: Request[Any, Any, State], work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives. Cancels it, and with it what the database does, if the client goes away.

    The request's body must have been read. Raises `ClientGone`, and what `work` raises.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        leaving.result()
        raise ClientGone("The client went away.")
    finally:
        leaving.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _left(request: Request[Any, Any, State]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
