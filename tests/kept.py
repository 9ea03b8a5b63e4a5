"""What a test opens once for all its steps: connections cost more than most of what is asked."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


_open: list["Kept"] = []


def close_all() -> None:
    """Before the test's database goes."""
    while _open:
        _open.pop().close()


class Kept:
    """An event loop that goes on between the steps of a test, and what was opened in it.

    It ends with the test's database, or by `close`.
    """

    def __init__(self) -> None:
        _open.append(self)
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._by_name: dict[str, Any] = {}
        self._looking: psycopg.Connection | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """One step."""
        return self._runner.run(work)

    async def once(self, name: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` gives, opened when it is first asked for."""
        if name not in self._by_name:
            self._by_name[name] = await self._opened.enter_async_context(make())
        opened: T = self._by_name[name]
        return opened

    def looking(self, url: str) -> psycopg.Connection:
        """A connection to look around on, or to prepare something; each statement is committed."""
        if self._looking is None:
            self._looking = psycopg.connect(url, autocommit=True)
        return self._looking

    def close(self) -> None:
        """Close everything, and the loop."""
        if self in _open:
            _open.remove(self)
        if self._looking is not None:
            self._looking.close()
        self._runner.run(self._opened.aclose())
        self._runner.close()
