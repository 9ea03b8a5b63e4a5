"""The API on a test's own database, asked in the same event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from listening import PORT, process
from paqett import app, db, keys
from paqett.passwords import Hasher
from paqett.principals import SCOPES
from paqett.settings import Settings
from paqett.web.server import create_app
from people import CHEAP_HASHES
from ports import free_port
from support import with_url


class Asker(msgspec.Struct):
    """A client and the key it sends; `ask` gives the response."""

    client: httpx.AsyncClient
    key: str | None = None

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return await self.client.request(method, path, headers=headers, **more)


class Api:
    """Opens the application; `key` makes an API key for an account, `later` moves its clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ahead = timedelta()
        self.frozen: datetime | None = None
        self.hasher: Hasher

    def later(self, by: timedelta) -> None:
        self.ahead += by

    def now(self) -> datetime:
        return (self.frozen or app.utc_now()) + self.ahead

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        async with app.services(self.settings, "test", self.now) as services:
            self.hasher = services.hasher
            application = create_app(services)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client
            await application.state.door.close()
            await application.state.hub.close()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[httpx.AsyncClient]:
        """The same over a real server and real sockets."""
        http = msgspec.structs.replace(self.settings.http, port=free_port(PORT))
        async with (
            process(msgspec.structs.replace(self.settings, http=http), self.now) as running,
            httpx.AsyncClient(base_url=running.url, timeout=60) as client,
        ):
            yield client

    async def key(self, account_id: int, *scopes: str, devices: list[str] | None = None) -> str:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            wanted = list(scopes) or sorted(SCOPES)
            return (await keys.create(conn, account_id, "test", wanted, devices, None)).key

    def run(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            async with self.open() as client:
                await work(client)

        asyncio.run(run())


@pytest.fixture
def make_api(database_url: str) -> Callable[..., Api]:
    """An API with other settings, on the same database."""

    def make(**environ: str) -> Api:
        return Api(with_url(database_url, **{**CHEAP_HASHES, **environ}))

    return make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()
