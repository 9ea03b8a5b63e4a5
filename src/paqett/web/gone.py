"""A client that goes away takes its query with it."""

import asyncio
from collections.abc import Coroutine
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
    working = asyncio.current_task()
    assert working is not None  # noqa: S101 - a coroutine runs in a task
    watch = _Watch(working)
    leaving = asyncio.create_task(watch.run(request))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.saw is None:
            raise  # somebody else's doing
        working.uncancel()
        raise watch.saw from None
    finally:
        leaving.cancel()


class _Watch:
    """Cancels `working` when the client goes away; `saw` is why."""

    def __init__(self, working: asyncio.Task[Any]) -> None:
        self._working = working
        self.saw: Exception | None = None

    async def run(self, request: Request[Any, Any, State]) -> None:
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.saw = ClientGone("The client went away.")
        except Exception as error:
            self.saw = error
        self._working.cancel()
