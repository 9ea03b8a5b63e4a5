"""What every answer carries and every request passes, whatever answers it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from structlog.testing import capture_logs

from paqett import app
from paqett.errors import ConfigurationError
from paqett.web import edge
from paqett.web.client import plain_address
from paqett.web.server import create_app, create_ops_app
from support import Tenant

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
DATA = "default-src 'none'; frame-ancestors 'none'"
STRANGER = "203.0.113.9"
PROXY = "10.1.2.3"


@asynccontextmanager
async def seen_from(
    api: Any, address: str, make: Any = create_app
) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose connection comes from `address`."""
    async with app.services(api.settings, "test", api.now) as services:
        application = make(services)
        transport = httpx.ASGITransport(
            application, client=(address, 4711), raise_app_exceptions=False
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
        if make is create_app:
            await application.state.door.close()


def run(work: Any) -> None:
    import asyncio

    asyncio.run(work())


def test_every_answer_carries_the_headers_also_an_error(api, owner: Tenant) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        telemetry = f"/api/v1/devices/{owner.devices[0]}/telemetry"
        asked: list[tuple[int, str, str, dict[str, Any]]] = [
            (200, "GET", "/healthz", {}),
            (200, "GET", "/schema/openapi.json", {}),
            (200, "GET", "/api/v1/devices", {"headers": headers}),
            (204, "DELETE", f"/api/v1/devices/{owner.devices[1]}", {"headers": headers}),
            (401, "GET", "/api/v1/devices", {}),
            (404, "GET", "/nowhere", {}),
            (404, "GET", "/api/v1/nowhere", {}),
            (404, "GET", "/api/v1/devices/nobody", {"headers": headers}),
            (405, "PUT", "/api/v1/devices", {"headers": headers}),
            (413, "POST", telemetry, {"headers": headers, "content": bytes(1_100_000)}),
            (415, "POST", telemetry, {
                "headers": {**headers, "Content-Type": "image/png"}, "content": b"x"}),
            (422, "POST", "/api/v1/devices", {"headers": headers, "json": {"thing_name": 1}}),
        ]  # fmt: skip
        for status, method, path, more in asked:
            answer = await client.request(method, path, **more)
            assert answer.status_code == status, (method, path)
            for name, value in ALWAYS.items():
                assert answer.headers.get_list(name) == [value], (method, path, name)
            assert answer.headers["content-security-policy"] == DATA
            assert len(answer.headers["x-request-id"]) == 16
            assert "strict-transport-security" not in answer.headers, "not over plain HTTP"
            if path.startswith("/api/") or status >= 400:
                assert answer.headers["cache-control"] == "no-store"
            if status >= 400:
                problem = answer.json()
                assert answer.headers["content-type"] == "application/problem+json"
                assert problem["type"] == f"/docs/errors#{problem['code']}"
                assert problem["status"] == status
            if status == 405:
                assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))

    api.run(work)


def test_a_fault_of_ours_is_a_problem_too_and_tells_nothing(api, owner, monkeypatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("postgresql://user:secret@host")

    monkeypatch.setattr("paqett.usage.today", broken)

    async def work() -> None:
        async with seen_from(api, STRANGER) as client:
            headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
            with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
                answer = await client.get("/api/v1/usage?secret=1", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
            assert "secret" not in answer.text
            for name, value in ALWAYS.items():
                assert answer.headers[name] == value
            [fault] = [line for line in logs if line["event"] == "unhandled"]
            assert fault["route"] == "/api/v1/usage"
            assert fault["request_id"] == answer.headers["x-request-id"]

    run(work)


def test_the_operators_listener_carries_them_as_well(api) -> None:
    async def work() -> None:
        async with seen_from(api, "127.0.0.1", create_ops_app) as client:
            for path, status in (("/metrics", 200), ("/nowhere", 404)):
                answer = await client.get(path)
                assert answer.status_code == status
                assert answer.headers["content-security-policy"] == DATA
                assert answer.headers["x-content-type-options"] == "nosniff"

    run(work)


def test_behind_tls_browsers_are_told_to_stay_there(make_api) -> None:
    api = make_api(PAQETT_PAQETT__PUBLIC_URL="https://paqett.example")

    async def work(client: httpx.AsyncClient) -> None:
        for path in ("/healthz", "/nowhere"):
            hsts = (await client.get(path)).headers["strict-transport-security"]
            assert hsts == "max-age=31536000"

    api.run(work)


@pytest.mark.parametrize(
    ("sent", "policy", "cache"),
    [
        ({"content-type": "application/json"}, DATA, None),
        ({"content-type": "text/html; charset=utf-8"}, edge.PAGE_POLICY, None),
        ({"content-type": "text/html", "content-security-policy": "own"}, "own", None),
        ({"cache-control": "private"}, DATA, "private"),
    ],
)
def test_a_page_has_a_policy_of_its_own_and_may_set_another(api, sent, policy, cache) -> None:
    assert "unsafe" not in edge.PAGE_POLICY
    assert edge.PAGE_POLICY.startswith("default-src 'self'")

    async def page(scope: Any, receive: Any, send: Any) -> None:
        raw = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"x"})

    async def around(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})
        async with app.services(api.settings, "test") as services:
            await edge.wrap(page, services)(scope, receive, send)

    async def work() -> None:
        transport = httpx.ASGITransport(around)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/")
            assert answer.headers.get_list("content-security-policy") == [policy]
            assert answer.headers.get("cache-control") == cache

    run(work)


def test_a_request_has_a_number_that_strangers_cannot_choose(make_api) -> None:
    api = make_api(PAQETT_HTTP__TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1")

    async def given(address: str, wanted: str | bytes | None) -> str:
        async with seen_from(api, address) as client:
            headers = {"X-Request-Id": wanted} if wanted is not None else {}
            number: str = (await client.get("/healthz", headers=headers)).headers["x-request-id"]
            return number

    async def work() -> None:
        assert await given(STRANGER, "abc-1") != "abc-1"
        assert len({await given(STRANGER, None) for _ in range(5)}) == 5
        for proxy in (PROXY, "192.0.2.1", "::ffff:10.9.9.9"):
            assert await given(proxy, "abc-1") == "abc-1"
            for bad in ("", "a b", "a" * 65, "a\tb", "é".encode()):
                assert len(await given(proxy, bad)) == 16

    run(work)


def last_used(url: str) -> str:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT host(last_used_ip) FROM api_key ORDER BY id DESC").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", STRANGER, "198.51.100.1", STRANGER),  # nobody is trusted
        ("", "127.0.0.1", "198.51.100.1", "127.0.0.1"),
        ("10.0.0.0/8", STRANGER, "198.51.100.1", STRANGER),  # somebody else is
        ("10.0.0.0/8", PROXY, "198.51.100.1", "198.51.100.1"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "198.51.100.1", "198.51.100.1"),
        # what the client itself wrote stands before what the proxy wrote
        ("10.0.0.0/8", PROXY, "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.0/8", PROXY, "192.0.2.66, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.0/8", PROXY, "2001:db8::1", "2001:db8::1"),
        ("10.0.0.0/8", PROXY, "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.0/8", PROXY, "unknown", PROXY),  # no address: the proxy itself
        ("10.0.0.0/8", PROXY, "x'; DROP TABLE api_key; --", PROXY),
        ("10.0.0.0/8", PROXY, "", PROXY),
        ("2001:db8:a::/48", "2001:db8:a::1", "198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_clients_address_is_the_peers_or_what_a_trusted_proxy_says(
    make_api, owner, database_url, trusted, peer, forwarded, expected
) -> None:
    api = make_api(PAQETT_HTTP__TRUSTED_PROXIES=trusted)

    async def work() -> None:
        key = await api.key(owner.account_id)
        headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": forwarded}
        async with seen_from(api, peer) as client:
            assert (await client.get("/api/v1/devices", headers=headers)).status_code == 200

    run(work)
    assert last_used(database_url) == expected


def test_a_spoofed_address_gives_no_more_attempts(api) -> None:
    async def work() -> None:
        async with seen_from(api, STRANGER) as client:
            statuses = []
            for number in range(62):
                headers = {
                    "Authorization": "Bearer pqt_guess",
                    "X-Forwarded-For": f"198.51.100.{number}",
                    "Forwarded": f"for=198.51.100.{number}",
                    "X-Real-IP": f"198.51.100.{number}",
                }
                answer = await client.get("/api/v1/devices", headers=headers)
                statuses.append(answer.status_code)
            assert statuses == [401] * 60 + [429] * 2
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers["ratelimit-policy"] == '"key_failures_address";q=60;w=60'
        async with seen_from(api, "203.0.113.10") as client:
            headers = {"Authorization": "Bearer pqt_guess"}
            assert (await client.get("/api/v1/devices", headers=headers)).status_code == 401

    run(work)


@pytest.mark.parametrize("wrong", ["*", "10.0.0.1/8", "proxy.example", "10.0.0.0/8;::1", "10.0.0"])
def test_proxies_that_are_no_networks_refuse_to_start(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        edge.trusted_proxies(wrong)
    assert edge.trusted_proxies(" 10.0.0.0/8 , ::1,") == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.1:80", ""),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert plain_address(text) == address


def test_the_log_line_of_a_request_holds_nothing_a_stranger_wrote(api, owner: Tenant) -> None:
    nasty = "%0d%0aFORGED%1b%5b2J"

    async def work() -> None:
        async with seen_from(api, STRANGER) as client:
            key = await api.key(owner.account_id)
            headers = {
                "Authorization": f"Bearer {key}",
                "User-Agent": "FORGED\x1b[31m agent",
                "Referer": "http://FORGED/",
                "X-Request-Id": "FORGED",
                "X-Forwarded-For": "FORGED",
                "Cookie": "paqett_session=FORGED",
            }
            with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
                for path in (
                    f"/{nasty}",
                    f"/api/v1/devices/{nasty}?token=FORGED",
                    "/api/v1/devices",
                ):
                    answer = await client.get(path, headers=headers)
            lines = [line for line in logs if line["event"] == "request"]
            assert [(line["route"], line["status"]) for line in lines] == [
                ("none", 404), ("/api/v1/devices/{device_id}", 404), ("/api/v1/devices", 200),
            ]  # fmt: skip
            assert lines[-1]["request_id"] == answer.headers["x-request-id"]
            assert lines[-1]["account"] == owner.account_id
            assert {line["log_level"] for line in lines} == {"debug"}
            written = json.dumps(logs)
            for secret in ("FORGED", key, STRANGER, "token"):
                assert secret not in written

    run(work)
