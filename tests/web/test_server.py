"""The listeners and what they say while the database is away."""

import asyncio

import httpx
import psycopg
import pytest

from paqett import app, migrate
from paqett.errors import ConfigurationError, Unavailable
from paqett.web import health
from paqett.web.exposure import check_listener, check_ops_listener
from paqett.web.server import create_app
from ports import free_port
from support import make_tenant, with_url

AWAY = "postgresql://nobody:x@127.0.0.1:{port}/none"


def test_while_the_database_is_away_the_answer_is_503_with_retry_after() -> None:
    settings = with_url(
        AWAY.format(port=free_port(56900)), PAQETT_DATABASE__CONNECT_TIMEOUT_S="0.3"
    )
    key = "pqt_00000000000000000000000000000000"

    async def work() -> None:
        from paqett import keys

        headers = {"Authorization": f"Bearer {key}{keys._checksum(key)}"}
        async with app.services(settings, "test") as services:
            transport = httpx.ASGITransport(create_app(services))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.get("/api/v1/devices", headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert answer.headers["content-type"] == "application/problem+json"
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/readyz")).status_code == 503

    asyncio.run(work())


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({}, False),
        ({"PAQETT_HTTP__HOST": "0.0.0.0"}, True),
        ({"PAQETT_HTTP__HOST": "0.0.0.0", "PAQETT_HTTP__ALLOW_PLAIN": "true"}, False),
        ({"PAQETT_HTTP__HOST": "0.0.0.0", "PAQETT_HTTP__TLS_CERT_FILE": "c.pem"}, False),
    ],
)
def test_plain_http_beyond_this_machine_must_be_asked_for(environ, refused) -> None:
    http = with_url("", **environ).http
    if refused:
        with pytest.raises(ConfigurationError, match="allow_plain"):
            check_listener(http)
    else:
        check_listener(http)


def test_the_operators_listener_stays_on_this_machine_too() -> None:
    environ = {"PAQETT_OPS__PORT": "9480", "PAQETT_OPS__HOST": "0.0.0.0"}
    with pytest.raises(ConfigurationError, match=r"ops\.host"):
        check_ops_listener(with_url("", **environ))
    check_ops_listener(with_url("", **environ, PAQETT_HTTP__ALLOW_PLAIN="true"))


def test_the_operators_token_opens_the_details(api) -> None:
    from support import with_url as changed

    api.settings = changed(api.settings.database.url, PAQETT_OPS__TOKEN="let-me-in")

    async def work(client: httpx.AsyncClient) -> None:
        for token, status in (("let-me-in", 200), ("wrong", 404)):
            headers = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/metrics", headers=headers)).status_code == status
        headers = {"Authorization": "Bearer let-me-in"}
        details = (await client.get("/readyz", headers=headers)).json()
        assert {tier["name"]: tier["retention_days"] for tier in details["tiers"]} == {
            "free": 7, "own": 365, "paid": 90,
        }  # fmt: skip
        assert details["schema"] == list(migrate.migrations())[-1]
        assert details["timescaledb"]["license"] in ("apache", "timescale")

    api.run(work)


def test_once_the_database_is_back_no_request_meets_a_connection_of_before(
    api, database_url: str
) -> None:
    tenant = make_tenant(database_url, "back")
    path = f"/api/v1/devices/{tenant.devices[0]}/telemetry"

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(tenant.account_id)}"}
        paths = ("/api/v1/devices", path, "/api/v1/devices", path)
        for _ in range(3):
            answers = await asyncio.gather(*(client.get(one, headers=headers) for one in paths))
            assert {answer.status_code for answer in answers} == {200}
            with psycopg.connect(database_url) as conn:
                ended = conn.execute(
                    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND application_name LIKE 'paqett %'"
                ).fetchone()
            assert ended is not None
            assert ended[0] >= 2, "of both pools"

    api.run(work)


def test_however_many_strangers_ask_the_database_is_asked_once_a_second(api, monkeypatch) -> None:
    asked, really = [], migrate.require_current

    async def count(conn) -> list[str]:
        asked.append(1)
        return await really(conn)

    async def away(_: object) -> list[str]:
        asked.append(1)
        raise Unavailable("away")

    async def statuses(client: httpx.AsyncClient) -> set[int]:
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(50)))
        return {answer.status_code for answer in answers}

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(migrate, "require_current", count)
        monkeypatch.setattr(health, "_KEPT_S", 60.0)
        assert await statuses(client) == {200}
        assert await statuses(client) == {200}
        assert 1 <= len(asked) <= 2  # the second for those who came while it was asked
        monkeypatch.setattr(migrate, "require_current", away)
        monkeypatch.setattr(health, "_KEPT_S", 0.0)
        assert await statuses(client) == {503}
        assert len(asked) <= 4

    api.run(work)


def test_strangers_do_not_wait_for_a_database_that_hangs(api, monkeypatch) -> None:
    really, released = migrate.require_current, asyncio.Event()

    async def hang(conn) -> list[str]:
        await released.wait()
        return await really(conn)

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(migrate, "require_current", hang)
        monkeypatch.setattr(health, "_PATIENCE_S", 0.2)
        monkeypatch.setattr(health, "_KEPT_S", 0.0)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(client.get("/readyz") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {503}
        released.set()
        monkeypatch.setattr(health, "_PATIENCE_S", 5.0)
        assert (await client.get("/readyz")).status_code == 200

    api.run(work)
