"""config/nginx/nginx.conf as a real nginx reads it, in front of a real API."""

import asyncio
import json
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

import papers
from listening import PORT, answering, process
from paqett import db, keys
from paqett.children import die_with_parent
from paqett.errors import Unavailable
from paqett.settings import Settings
from people import CHEAP_HASHES, new_person
from ports import free_port
from support import make_tenant, with_url

ROOT = Path(__file__).parents[2]
CLIENT = "127.0.0.9"


class Proxy:
    """nginx on the shipped file: only paths, ports and the API's address are another's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.api_port = folder, free_port(PORT + 40)
        self.tls_port = free_port(self.api_port + 1)
        self.plain_port = free_port(self.tls_port + 1)
        self.chain, self.key = folder / "fullchain.pem", folder / "privkey.pem"
        self.renew()
        text = (ROOT / "config/nginx/nginx.conf").read_text()
        for old, new in (
            ("/tmp/", f"{folder}/"), ("/certs/", f"{folder}/"),
            ("http://api:8080", f"http://127.0.0.1:{self.api_port}"),
            ("listen 8443 ", f"listen 127.0.0.1:{self.tls_port} "),
            ("listen 8080;", f"listen 127.0.0.1:{self.plain_port};"),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)

    def renew(self) -> str:
        """Another certificate in the same files; its text."""
        chain, key = papers.write(self.folder, "localhost")
        chain.replace(self.chain)
        key.replace(self.key)
        return self.chain.read_text()

    def command(self, *more: str) -> list[str]:
        return ["/usr/sbin/nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder),
                "-g", "daemon off; user root;", *more]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(), preexec_fn=die_with_parent(signal.SIGQUIT))

    def shown(self) -> str:
        return ssl.get_server_certificate(("127.0.0.1", self.tls_port))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.tls_port}"

    def client(self) -> httpx.AsyncClient:
        trusted = ssl.create_default_context(cafile=str(self.chain))
        transport = httpx.AsyncHTTPTransport(verify=trusted, local_address=CLIENT)
        return httpx.AsyncClient(base_url=self.url, transport=transport, timeout=15)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with TemporaryDirectory(prefix="paqett-px-", dir="/var/tmp") as folder:
        yield Proxy(Path(folder))


@asynccontextmanager
async def serving(proxy: Proxy, url: str) -> AsyncIterator[Settings]:
    settings = with_url(
        url,
        PAQETT_HTTP__PORT=str(proxy.api_port),
        PAQETT_HTTP__TRUSTED_PROXIES="127.0.0.1",
        PAQETT_PAQETT__PUBLIC_URL=proxy.url,
        **CHEAP_HASHES,
    )
    async with process(settings):
        front = await asyncio.to_thread(proxy.start)
        try:
            await answering(proxy.tls_port)
            yield settings
        finally:
            front.terminate()
            await asyncio.to_thread(front.wait, 20)


def test_nginx_has_nothing_to_complain_of(proxy: Proxy) -> None:
    said = subprocess.run(proxy.command("-t"), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    said_otherwise = [
        line for line in said.stderr.splitlines()
        if not re.search(r"syntax is ok|test is successful|http2\" directive", line)
    ]  # fmt: skip
    assert said_otherwise == []


def test_what_people_send_arrives_as_theirs(proxy: Proxy, database_url: str) -> None:
    async def work() -> None:
        async with serving(proxy, database_url) as settings, proxy.client() as client:
            answer = await client.get("/healthz")
            assert (answer.text, answer.http_version) == ("ok\n", "HTTP/1.1")
            assert "max-age" in answer.headers["strict-transport-security"]
            assert "nginx/" not in answer.headers.get("server", "")
            plain = f"http://127.0.0.1:{proxy.plain_port}"
            async with httpx.AsyncClient() as other:
                assert (await other.get(f"{plain}/healthz")).text == "ok\n"
                sent_on = await other.get(f"{plain}/devices?q=a")
                assert sent_on.status_code == 308
                assert sent_on.headers["location"] == "https://127.0.0.1/devices?q=a"

            client.headers["X-Forwarded-For"] = "203.0.113.7"
            person = await new_person(client, settings)
            (session,) = (await person.client.get("/api/v1/sessions")).json()["items"]
            assert session["ip"] == CLIENT, "the proxy's word, not the client's own"

    asyncio.run(work())


@contextmanager
def echoing(port: int) -> Iterator[None]:
    """In the API's place: the headers that reached it, as JSON."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([[name.lower(), value] for name, value in self.headers.items()])
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """No line."""

    with ThreadingHTTPServer(("127.0.0.1", port), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def test_no_client_says_who_it_is_or_whose_trace_it_belongs_to(proxy: Proxy) -> None:
    sent = {
        "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http", "X-Request-Id": "mine",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "mine=1",
    }  # fmt: skip

    async def work() -> dict[str, str]:
        front = await asyncio.to_thread(proxy.start)
        try:
            await answering(proxy.tls_port)
            async with proxy.client() as client:
                found = (await client.get("/", headers=sent)).json()
        finally:
            front.terminate()
            await asyncio.to_thread(front.wait, 20)
        assert len({name for name, _ in found}) == len(found), "each once"
        return dict(found)

    with echoing(proxy.api_port):
        got = asyncio.run(work())
    assert got["x-forwarded-for"] == CLIENT
    assert got["x-forwarded-proto"] == "https"
    assert got["x-request-id"] != "mine"
    assert not {"traceparent", "tracestate"} & got.keys()


def assert_says_it_is_away(answer: httpx.Response) -> None:
    """As the API says it while its database is away."""
    away = Unavailable("Paqett is starting or away; try again.")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (away.status, away.code)
    assert body == {
        "type": f"/docs/errors#{away.code}", "title": away.title, "status": away.status,
        "code": away.code, "detail": str(away),
    }  # fmt: skip
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


def test_neither_addresses_nor_paths_stand_in_its_log_when_the_api_is_away(proxy: Proxy) -> None:
    async def work() -> bytes:
        front = await asyncio.to_thread(
            lambda: subprocess.Popen(
                proxy.command(), preexec_fn=die_with_parent(signal.SIGQUIT), stderr=subprocess.PIPE
            )
        )
        try:
            await answering(proxy.tls_port)
            async with proxy.client() as client:
                asked = await client.post("/hooks/broker/verysecret/user", data={"a": "b"})
                assert_says_it_is_away(asked)
        finally:
            front.terminate()
            _, said = await asyncio.to_thread(front.communicate)
        return bytes(said)

    said = asyncio.run(work())
    assert b"verysecret" not in said
    assert CLIENT.encode() not in said


def test_a_live_stream_comes_through_at_once_and_outlives_a_renewed_certificate(
    proxy: Proxy, database_url: str
) -> None:
    tenant = make_tenant(database_url, "live")

    async def work() -> None:
        async with serving(proxy, database_url) as settings, proxy.client() as client:
            scopes = ["telemetry:read", "telemetry:write", "devices:read"]
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                key = await keys.create(conn, tenant.account_id, "k", scopes, None, None)
            client.headers["Authorization"] = f"Bearer {key.key}"
            path = f"/api/v1/devices/{tenant.devices[0]}"
            big = await client.post(f"{path}/telemetry", content=b"x" * 1_500_000)
            assert big.status_code == 413
            assert big.headers["content-type"].startswith("application/problem+json"), "the API's"
            async with client.stream("GET", f"{path}/stream") as stream, asyncio.timeout(20):
                lines = stream.aiter_lines()
                await anext(lines)  # it stands
                await _arrives(client, path, lines, 1)
                first, second = proxy.shown(), proxy.renew()
                assert first != second
                _hang_up(proxy)
                while await asyncio.to_thread(proxy.shown) != second:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                async with aclosing(await _renewed(proxy)) as another:
                    another.headers = client.headers
                    await _arrives(another, path, lines, 2)

    asyncio.run(work())


async def _renewed(proxy: Proxy) -> httpx.AsyncClient:
    """A client that trusts the new certificate alone, connected: a process of nginx that ends may
    have taken one more connection with the old one."""
    while True:
        client = proxy.client()
        try:
            await client.get("/healthz")
        except httpx.ConnectError:
            await client.aclose()
            await asyncio.sleep(0.05)
        else:
            return client


async def _arrives(
    client: httpx.AsyncClient, path: str, lines: AsyncIterator[str], value: int
) -> None:
    assert (await client.post(f"{path}/telemetry", json={"t": value})).status_code == 200
    async for line in lines:
        if line.startswith("data:") and f'"value":{value}' in line.replace(" ", ""):
            return
    raise AssertionError("the stream ended")


def _hang_up(proxy: Proxy) -> None:
    pid = int((proxy.folder / "nginx.pid").read_text())
    subprocess.run(["kill", "-HUP", str(pid)], check=True)
