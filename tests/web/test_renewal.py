"""A renewed certificate is shown to whoever connects next; nobody who is connected notices."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import papers
from listening import PORT, Listening, process
from paqett import certificates
from ports import free_port
from support import with_url

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ANYBODY = ssl.create_default_context()
ANYBODY.check_hostname, ANYBODY.verify_mode = False, ssl.CERT_NONE

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(api: Listening) -> Connection:
    return await asyncio.open_connection("127.0.0.1", api.port, ssl=ANYBODY)


async def ask(connection: Connection) -> bytes:
    reader, writer = connection
    writer.write(GET)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert await reader.readexactly(3) == b"ok\n"
    return head


async def shown(api: Listening) -> str:
    """The certificate a new connection sees."""
    _, writer = await connect(api)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(found)


async def until_shown(api: Listening, wanted: str, timeout_s: float = 20) -> float:
    began = time.monotonic()
    while await shown(api) != wanted:
        assert time.monotonic() - began < timeout_s
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@asynccontextmanager
async def serving(url: str, pair: tuple[Path, Path]) -> AsyncIterator[Listening]:
    settings = with_url(
        url,
        PAQETT_HTTP__PORT=str(free_port(PORT)),
        PAQETT_HTTP__TLS_CERT_FILE=str(pair[0]),
        PAQETT_HTTP__TLS_KEY_FILE=str(pair[1]),
    )
    async with process(settings) as api:
        yield api


def test_a_renewed_certificate_is_taken_when_its_files_change(
    database_url: str, tmp_path: Path
) -> None:
    pair = papers.write(tmp_path, "127.0.0.1")

    async def work() -> None:
        first = pair[0].read_text()
        async with serving(database_url, pair) as api:
            assert await shown(api) == first
            kept = await connect(api)
            assert b" 200 OK" in await ask(kept)
            papers.write(tmp_path, "127.0.0.1")
            second = pair[0].read_text()
            assert second != first
            await until_shown(api, second)
            assert b" 200 OK" in await ask(kept), "who was connected goes on"
            kept[1].close()

    asyncio.run(work())


def test_sighup_renews_at_once_and_what_does_not_fit_leaves_the_old_one(
    database_url: str, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(certificates, "_LOOK_EVERY_S", 3600.0)
    pair = papers.write(tmp_path, "127.0.0.1")

    async def work() -> None:
        first, key = pair[0].read_text(), pair[1].read_text()
        async with serving(database_url, pair) as api:
            kept = await connect(api)
            papers.write(tmp_path, "127.0.0.1")
            second, other_key = pair[0].read_text(), pair[1].read_text()
            pair[1].write_text(key)
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.1)
            assert await shown(api) == first, "the key is not the certificate's"
            pair[1].write_text(other_key)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await until_shown(api, second) < 5
            assert b" 200 OK" in await ask(kept)
            kept[1].close()

    asyncio.run(work())
    said = capfd.readouterr()
    assert "the old one stays" in said.out + said.err


def test_without_a_certificate_sighup_ends_nothing(database_url: str) -> None:
    async def work() -> None:
        async with process(with_url(database_url, PAQETT_HTTP__PORT=str(free_port(PORT)))) as api:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.1)
            answer = await api.say(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.1 200 ")

    asyncio.run(work())
