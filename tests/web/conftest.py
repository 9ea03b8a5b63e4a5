"""The API on a test's own database, asked in the same event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from paqett import app, db, keys
from paqett.children import free_port
from paqett.settings import Settings
from paqett.web.server import _server as uvicorn_server
from paqett.web.server import create_app


class Asker(msgspec.Struct):
    """A client and the key it sends; `ask` gives the response."""

    client: httpx.AsyncClient
    key: str | None = None

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return await self.client.request(method, path, headers=headers, **more)


class Api:
    """Opens the application; `key` makes an API key for an account."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        async with app.services(self.settings, "test") as services:
            application = create_app(services)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client
            await application.state.door.close()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[httpx.AsyncClient]:
        """The same over a real server and real sockets."""
        async with app.services(self.settings, "served") as services:
            port = free_port(57000)
            running = uvicorn_server(create_app(services), "127.0.0.1", port)
            task = asyncio.create_task(running.serve())
            while not running.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{port}"
            try:
                async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                    yield client
            finally:
                running.should_exit = True
                await task

    async def key(self, account_id: int, *scopes: str, devices: list[str] | None = None) -> str:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            wanted = list(scopes) or sorted(keys.SCOPES)
            return (await keys.create(conn, account_id, "test", wanted, devices, None)).key

    def run(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            async with self.open() as client:
                await work(client)

        asyncio.run(run())


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)
