"""What a test opens once for all its steps: connections cost more than most of what is asked."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

T = TypeVar("T")


class Kept:
    """An event loop that goes on between the steps of a test, and what was opened in it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._by_name: dict[str, Any] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """One step."""
        return self._runner.run(work)

    async def once(self, name: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` gives, opened when it is first asked for."""
        if name not in self._by_name:
            self._by_name[name] = await self._opened.enter_async_context(make())
        opened: T = self._by_name[name]
        return opened

    def close(self) -> None:
        """Close everything, and the loop."""
        self._runner.run(self._opened.aclose())
        self._runner.close()
