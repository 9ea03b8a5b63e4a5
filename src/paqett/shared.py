"""One question for all who want its answer, however many come."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")


class Shared(Generic[_Answer]):
    """What `ask` gives, or raises, to all who came before it was asked; one at a time."""

    def __init__(self, ask: Callable[[], Awaitable[_Answer]]) -> None:
        self._ask = ask
        self._next: asyncio.Task[_Answer] | None = None
        self._asking = asyncio.Lock()

    async def now(self) -> _Answer:
        """The answer, as of this moment or later."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask_next())
            # whoever asked may have given up
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _ask_next(self) -> _Answer:
        async with self._asking:
            self._next = None  # who comes from now on may see more
            return await self._ask()
