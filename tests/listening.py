"""API processes of a test on real sockets of this machine, and bytes sent to them by hand."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from paqett import app
from paqett.app import utc_now
from paqett.settings import Settings
from paqett.web.server import serve
from ports import free_port
from support import with_url

# two workers must not take one port between looking and binding
PORT = 58000 + 300 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


class Listening(msgspec.Struct):
    """A process that listens on `port`; `stop` ends it as a signal would."""

    port: int
    stop: asyncio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes, timeout_s: float = 10) -> bytes:
        """Send `data` and give what comes back until the other side closes."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), timeout_s)
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    url: str, clock: Callable[[], datetime] = utc_now, **environ: str
) -> AsyncIterator[Listening]:
    """One API process on the database at `url`."""
    port = free_port(PORT)
    async with process(with_url(url, PAQETT_HTTP__PORT=str(port), **environ), clock) as one:
        yield one


@asynccontextmanager
async def process(
    settings: Settings, clock: Callable[[], datetime] = utc_now
) -> AsyncIterator[Listening]:
    """One API process as the settings say."""
    stop = asyncio.Event()
    async with app.services(settings, "test", clock) as services:
        running = asyncio.create_task(serve(services, stop))
        try:
            await answering(settings.http.port, running)
            yield Listening(settings.http.port, stop)
        finally:
            stop.set()
            await running


async def answering(port: int, running: asyncio.Task[None] | None = None) -> None:
    """Return once something listens there; raises what ended it before."""
    for _ in range(500):
        if running is not None and running.done():
            await running
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError(f"nothing ever listened on {port}")
