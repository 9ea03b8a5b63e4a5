"""Slow, endless, oversized and too many connections; TLS; what we rely on in uvicorn."""

import asyncio
import inspect
import re
import ssl
import subprocess
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from listening import Listening, listening, process
from paqett import db, keys
from paqett.errors import ConfigurationError
from paqett.web.listener import Protocol, listen
from ports import free_port
from support import make_tenant, with_url

QUICK = {"PAQETT_HTTP__REQUEST_TIMEOUT_S": "0.5"}
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def drip(
    api: Listening, first: bytes, drop: bytes, every_s: float = 0.1
) -> tuple[float, bytes]:
    """Send `first`, then `drop` again and again; how long that was endured, and what came back."""
    reader, writer = await api.connect()
    started = time.monotonic()
    writer.write(first)
    answer = b""
    try:
        while time.monotonic() - started < 8:
            try:
                more = await asyncio.wait_for(reader.read(65536), every_s)
            except TimeoutError:
                writer.write(drop)
                continue
            if not more:
                break
            answer += more
    except ConnectionError:
        pass
    finally:
        writer.close()
    return time.monotonic() - started, answer


def test_a_head_that_never_ends_is_given_up(database_url: str) -> None:
    async def is_given_up(api: Listening, first: bytes, drop: bytes) -> None:
        took, answer = await drip(api, first, drop)
        assert took < 6.5, (first, drop)  # uvicorn gives idle connections 5 s
        if b"GET /" in first.removeprefix(GET):
            assert took < 2
            assert b"HTTP/1.1 408 " in answer
            assert b'"code":"request_timeout"' in answer

    async def work() -> None:
        async with listening(database_url, **QUICK) as api:
            heads = (
                (b"", b""),  # says nothing at all
                (b"", b"\r\n"),  # blank lines, which come before a request
                (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n"),
                (b"GET /", b"a"),
                (GET, b"\r\n"),  # after a request that was answered
                (GET, b""),
                (GET + b"GET /", b"a"),
            )
            async with asyncio.TaskGroup() as group:
                for first, drop in heads:
                    group.create_task(is_given_up(api, first, drop))
            assert b" 200 OK" in await api.say(LAST), "others are served"

    asyncio.run(work())


def test_a_body_that_trickles_in_is_408_and_the_connection_is_closed(database_url: str) -> None:
    head = b"POST /api/v1/devices/d/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"

    async def work() -> None:
        async with listening(database_url, **QUICK) as api:
            tenant = await asyncio.to_thread(make_tenant, database_url, "slow")
            key = await key_of(database_url, tenant.account_id)
            own = head.replace(b"/d/", b"/" + tenant.devices[0].encode() + b"/")
            own += b"Authorization: Bearer " + key.encode() + b"\r\n\r\n"
            took, answer = await drip(api, own + b"[", b" ")
            assert took < 2
            start, _, body = answer.partition(b"\r\n\r\n")
            assert start.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in start
            assert b"x-content-type-options: nosniff" in start
            assert b'"code":"request_timeout"' in body
            # answered before the body came: the rest must not arrive for ever either
            took, answer = await drip(api, head + b"\r\n[", b" ")
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert took < 2

    asyncio.run(work())


async def key_of(url: str, account_id: int) -> str:
    async with await db.connect(with_url(url).database, "test", autocommit=True) as conn:
        return (await keys.create(conn, account_id, "k", ["telemetry:write"], None, None)).key


def test_a_body_that_is_slow_but_in_time_is_taken(database_url: str) -> None:
    async def work() -> None:
        async with listening(database_url, PAQETT_HTTP__REQUEST_TIMEOUT_S="5") as api:
            tenant = await asyncio.to_thread(make_tenant, database_url, "slow")
            key = await key_of(database_url, tenant.account_id)

            async def body():
                for part in (b'{"a"', b": ", b"1}"):
                    await asyncio.sleep(0.2)
                    yield part

            async with httpx.AsyncClient() as client:
                answer = await client.post(
                    f"{api.url}/api/v1/devices/{tenant.devices[0]}/telemetry",
                    content=body(),
                    headers={"Authorization": f"Bearer {key}"},
                )
            assert (answer.status_code, answer.json()["accepted"]) == (200, 1)

    asyncio.run(work())


def test_requests_sent_at_once_are_answered_one_after_the_other(database_url: str) -> None:
    post = b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{}"

    async def work() -> None:
        async with listening(database_url, **QUICK) as api:
            answer = await api.say(GET + GET + post + b"  " + LAST)
            found = re.findall(rb"HTTP/1\.1 (\d{3})", answer)
            assert found == [b"200", b"200", b"401", b"200"]
            # a body that comes in two parts behind another request, and a connection that goes on
            reader, writer = await api.connect()
            writer.write(GET + post)
            await asyncio.sleep(0.2)
            writer.write(b"  ")
            await asyncio.sleep(0.7)
            writer.write(LAST)
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.count(b"HTTP/1.1 200 OK") == 2
            writer.close()

    asyncio.run(work())


def test_a_head_that_is_too_large_is_431(database_url: str) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

    async def work() -> None:
        async with listening(database_url) as api:
            for name, data in {
                "one header": start + b"X-A: " + b"a" * 17_000 + b"\r\n\r\n",
                "many headers": start + b"X-A: b\r\n" * 3_000 + b"\r\n",
                "the line": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                "no end in sight": start + b"X-A: " + b"a" * 70_000,
                "a name without end": start + b"X" * 70_000,
            }.items():
                answer = await api.say(data)
                assert answer.startswith(b"HTTP/1.1 431 "), name
                assert b'"code":"head_too_large"' in answer, name
                assert b"content-security-policy: default-src 'none'" in answer, name
            fits = start + b"X-A: " + b"a" * 15_000 + b"\r\n\r\n"
            assert (await api.say(fits)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(work())


def test_what_is_not_http_is_400_and_says_nothing_back(database_url: str) -> None:
    nasty = [
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\x1b[2Jb\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX\r\n-A: b\r\n\r\n",
        b"GET /a\x01b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\xffb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]

    async def work() -> None:
        async with listening(database_url) as api:
            for data in nasty:
                answer = await api.say(data)
                assert answer.startswith(b"HTTP/1.1 400 "), data
                assert b"application/problem+json" in answer
                assert b'"code":"bad_request"' in answer
                assert b"evil" not in answer
                assert b"x-frame-options: DENY" in answer

    asyncio.run(work())


def test_header_injection_by_an_encoded_line_end_makes_no_header(database_url: str) -> None:
    async def work() -> None:
        async with listening(database_url) as api:
            for target in (b"/a%0d%0aX-Evil:%20yes", b"/api/v1/devices/%0d%0aX-Evil:%20yes"):
                request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                head, _, _ = (await api.say(request)).partition(b"\r\n\r\n")
                assert b"evil" not in head.lower()
            request = LAST.replace(b"\r\n\r\n", b"\r\nX-Request-Id: evil\r\n\r\n")
            assert b"evil" not in await api.say(request)

    asyncio.run(work())


def test_connections_above_the_limit_are_told_503(database_url: str) -> None:
    async def work() -> None:
        async with listening(database_url, PAQETT_HTTP__MAX_CONNECTIONS="3") as api:
            await asyncio.sleep(0.1)
            held = [await api.connect() for _ in range(3)]
            for reader, writer in held:
                writer.write(GET)
                assert b" 200 OK" in await asyncio.wait_for(reader.read(4096), 5)
            answer = await api.say(GET)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in head
            assert b"connection: close" in head
            assert b'"code":"too_many_connections"' in body
            for reader, writer in held:  # and those that were there go on
                writer.write(GET)
                assert b" 200 OK" in await asyncio.wait_for(reader.read(4096), 5)
            held[0][1].close()
            await held[0][1].wait_closed()
            await asyncio.sleep(0.1)
            assert b" 200 OK" in await api.say(LAST)
            for _, writer in held:
                writer.close()

    asyncio.run(work())


def test_a_flood_of_connections_is_closed_unheard(database_url: str) -> None:
    async def work() -> None:
        async with listening(database_url, PAQETT_HTTP__MAX_CONNECTIONS="1") as api:
            held = [await api.connect() for _ in range(110)]
            await asyncio.sleep(0.3)
            closed = [reader for reader, _ in held if reader.at_eof() or reader.exception()]
            assert 5 <= len(closed) <= 12
            for _, writer in held:
                writer.close()

    asyncio.run(work())


def test_a_client_that_does_not_read_its_answer_is_given_up() -> None:
    """The protocol alone: what it does when the transport says its buffer is full."""

    async def work() -> None:
        aborted = asyncio.Event()
        settings = with_url("", PAQETT_HTTP__REQUEST_TIMEOUT_S="0.05")
        server = listen(_nothing, settings, "127.0.0.1", 0)  # type: ignore[arg-type]
        protocol = Protocol(server.config, server.server_state, {})
        transport = SimpleNamespace(
            abort=aborted.set,
            close=lambda: None,
            is_closing=lambda: False,
            get_extra_info=lambda _: None,
        )
        protocol.connection_made(transport)  # type: ignore[arg-type]
        protocol.pause_writing()
        protocol.resume_writing()
        await asyncio.sleep(0.1)
        assert not aborted.is_set(), "it read in time"
        protocol.pause_writing()
        await asyncio.wait_for(aborted.wait(), 2)
        protocol.connection_lost(None)

    asyncio.run(work())


async def _nothing(scope, receive, send) -> None:
    """No application."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def test_https_by_settings_with_hsts_and_nothing_older_than_tls_1_2(
    database_url: str, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    environ = {"PAQETT_HTTP__TLS_CERT_FILE": str(cert), "PAQETT_HTTP__TLS_KEY_FILE": str(key)}
    port = free_port(58200)

    async def version(newest: ssl.TLSVersion) -> str:
        context = ssl.create_default_context(cafile=str(cert))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found: str = writer.get_extra_info("ssl_object").version()
        writer.close()
        return found

    async def work() -> None:
        settings = with_url(database_url, PAQETT_HTTP__PORT=str(port), **environ)
        async with process(settings):
            trusted = ssl.create_default_context(cafile=str(cert))
            async with httpx.AsyncClient(verify=trusted) as client:
                for path, status in (("/healthz", 200), ("/none", 404)):
                    answer = await client.get(f"https://127.0.0.1:{port}{path}")
                    assert answer.status_code == status
                    hsts = answer.headers["strict-transport-security"]
                    assert int(hsts.partition("max-age=")[2]) >= 31_536_000
            assert await version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
            assert await version(ssl.TLSVersion.MAXIMUM_SUPPORTED) == "TLSv1.3"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await version(ssl.TLSVersion.TLSv1_1)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                async with httpx.AsyncClient() as client:
                    await client.get(f"http://127.0.0.1:{port}/healthz")

    # the protocol versions and ciphers that are refused are deprecated in the client, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.run(work())


def test_a_certificate_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for name in ("bad.pem", "none.pem"):
        settings = with_url("", PAQETT_HTTP__TLS_CERT_FILE=str(tmp_path / name))
        with pytest.raises(ConfigurationError, match="tls_cert_file"):
            listen(_nothing, settings, "127.0.0.1", 0, tls=True)  # type: ignore[arg-type]


def test_uvicorn_still_has_what_the_protocol_relies_on() -> None:
    """A newer uvicorn that fails here needs `web/listener.py` read again."""
    version = tuple(int(part) for part in uvicorn.__version__.split(".")[:2])
    assert (0, 35) <= version < (1, 0)
    for name in (
        "connection_made", "connection_lost", "data_received", "on_message_begin",
        "on_headers_complete", "on_message_complete", "on_response_complete", "pause_writing",
        "resume_writing", "send_400_response",
    ):  # fmt: skip
        overridden = getattr(Protocol, name)
        inherited = getattr(HttpToolsProtocol, name)
        assert list(inspect.signature(overridden).parameters) == list(
            inspect.signature(inherited).parameters
        )
    source = inspect.getsource(HttpToolsProtocol)
    for field in ("connections", "server_state", "transport", "cycle", "scope", "headers", "url"):
        assert f"self.{field}" in source
    assert "self.send_400_response(" in source
    assert '"state": self.app_state.copy()' in source, "the notes are one request's own"
    cycle = inspect.getsource(RequestResponseCycle)
    assert "self.response_complete = True" in cycle
    assert "self.on_response()" in cycle
