"""`/api/v1/grafana`: the login over HTTP, the files, and the dashboards that speak HTTP."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from grafana_support import Server, fresh_place
from paqett import dashboards
from paqett.settings import Settings
from paqett.web.grafana import place as place_of
from support import Tenant, make_tenant, with_url

LOGIN = "/api/v1/grafana"


@pytest.fixture(scope="module")
def server(server_url: str) -> Iterator[Server]:
    yield from fresh_place(server_url)


@pytest.fixture
def database_url(server: Server) -> str:
    return server.url


@pytest.fixture
def settings(server: Server) -> Settings:
    return server.settings


@pytest.fixture(scope="module")
def paying(server: Server) -> Tenant:
    return make_tenant(server.url, "paying", plan="paid")


async def _headers(api: Any, tenant: Tenant, *scopes: str, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {await api.key(tenant.account_id, *scopes, **more)}"}


def test_a_login_is_made_once_shown_rotated_and_dropped(api, server, paying) -> None:
    def connect(login: dict[str, Any]) -> psycopg.Connection:
        return psycopg.connect(
            host=login["host"], port=login["port"], dbname=login["database"],
            user=login["user"], password=login["password"], sslmode=login["sslmode"],
        )  # fmt: skip

    async def work(client: httpx.AsyncClient) -> None:
        headers = await _headers(api, paying)
        assert (await client.delete(LOGIN, headers=headers)).status_code == 404
        answer = await client.post(LOGIN, headers=headers)
        assert answer.status_code == 201
        first = answer.json()
        assert sorted(first) == ["database", "host", "password", "port", "sslmode", "user"]
        with connect(first) as conn:
            row = conn.execute("SELECT count(*) FROM grafana.devices").fetchone()
            assert row == (2,)
        second = (await client.post(LOGIN, headers=headers)).json()
        assert second["user"] == first["user"]
        with pytest.raises(psycopg.OperationalError):
            connect(first)
        connect(second).close()
        answer = await client.get(f"{LOGIN}/{dashboards.ARCHIVE}", headers=headers)
        assert second["password"].encode() not in answer.content
        assert (await client.delete(LOGIN, headers=headers)).status_code == 204
        with pytest.raises(psycopg.OperationalError):
            connect(second)

    api.run(work)


def test_a_plan_without_grafana_is_told_so(api, server) -> None:
    free = make_tenant(server.url, "unpaying", plan="free")

    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post(LOGIN, headers=await _headers(api, free))
        assert (answer.status_code, answer.json()["code"]) == (403, "not_in_plan")
        assert answer.headers["content-type"] == "application/problem+json"

    api.run(work)


def test_who_may_not_make_a_login(api, paying) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post(LOGIN)).status_code == 401
        assert (await client.delete(LOGIN)).status_code == 401
        reader = await _headers(api, paying, "telemetry:read", "account:read")
        limited = await _headers(api, paying, devices=paying.devices[:1])
        for headers, code in ((reader, "missing_scope"), (limited, "key_limited_to_devices")):
            for method in ("POST", "DELETE"):
                answer = await client.request(method, LOGIN, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, code)

    api.run(work)


def test_another_accounts_login_stays_when_a_stranger_drops_his(api, server, paying) -> None:
    stranger = make_tenant(server.url, "stranger", plan="paid")

    async def work(client: httpx.AsyncClient) -> None:
        mine, his = await _headers(api, paying), await _headers(api, stranger)
        made = (await client.post(LOGIN, headers=mine)).json()
        assert (await client.delete(LOGIN, headers=his)).status_code == 404
        other = (await client.post(LOGIN, headers=his)).json()
        assert other["user"] != made["user"]
        assert (await client.delete(LOGIN, headers=his)).status_code == 204
        file = await client.get(f"{LOGIN}/paqett-postgres.yaml", headers=mine)
        assert made["user"] in file.text
        assert (await client.delete(LOGIN, headers=mine)).status_code == 204

    api.run(work)


def test_the_files_carry_the_accounts_values_and_no_secret(api, paying) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = await _headers(api, paying)
        answer = await client.get(f"{LOGIN}/paqett-postgres.yaml", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        packed = (await client.get(f"{LOGIN}/{dashboards.ARCHIVE}", headers=headers)).content
        names = [name.rpartition("/")[2] for name in zipfile.ZipFile(io.BytesIO(packed)).namelist()]
        assert sorted(names) == [
            "device-http.json", "overview-http.json", "paqett-infinity.yaml", "paqett.yaml",
        ]  # fmt: skip
        login = (await client.post(LOGIN, headers=headers)).json()
        answer = await client.get(f"{LOGIN}/paqett-postgres.yaml", headers=headers)
        assert answer.headers["content-type"].startswith("application/yaml")
        for line in (
            f'url: "{login["host"]}:{login["port"]}"',
            f'user: "{login["user"]}"',
            f'database: "{login["database"]}"',
            f'sslmode: "{login["sslmode"]}"',
            'password: "${PAQETT_SQL_PASSWORD}"',
        ):
            assert line in answer.text
        archive = await client.get(f"{LOGIN}/{dashboards.ARCHIVE}", headers=headers)
        assert archive.headers["content-type"] == "application/zip"
        packed_files = zipfile.ZipFile(io.BytesIO(archive.content))
        assert {name.rpartition("/")[2] for name in packed_files.namelist()} == set(
            dashboards.shipped()
        )
        for name in packed_files.namelist():
            if name.endswith(".json"):
                json.loads(packed_files.read(name))
        for name in dashboards.shipped():
            answer = await client.get(f"{LOGIN}/{name}", headers=headers)
            assert answer.status_code == 200
        for name in ("passwd", "..%2f..%2fpaqett.toml", "paqett.toml", "overview.json%00"):
            answer = await client.get(f"{LOGIN}/{name}", headers=headers)
            assert answer.status_code == 404

    api.run(work)


def test_where_grafana_finds_the_database() -> None:
    def of(url: str, **more: str) -> tuple[str, int, str]:
        found = place_of(with_url(url, **more))
        return found.host, found.port, found.sslmode

    assert of("postgresql://u:p@127.0.0.1:5433/d") == ("127.0.0.1", 5433, "disable")
    assert of("postgresql://u:p@db.example.org/d") == ("db.example.org", 5432, "verify-full")
    assert of("postgresql:///d") == ("localhost", 5432, "disable")
    assert of(
        "postgresql://u:p@127.0.0.1/d",
        PAQETT_GRAFANA__HOST="db.example.org",
        PAQETT_GRAFANA__PORT="6432",
        PAQETT_GRAFANA__SSLMODE="require",
    ) == ("db.example.org", 6432, "require")


def _value(row: dict[str, Any], selector: str) -> Any:
    value: Any = row
    for part in selector.split("."):
        value = value[part]
    return value


def _check(columns: list[dict[str, str]], rows: list[dict[str, Any]]) -> None:
    for row in rows:
        values = {column["type"]: _value(row, column["selector"]) for column in columns}
        assert isinstance(values.get("number", 0.0), (int, float))
        assert str(values.get("timestamp", "Z")).endswith("Z")


def _infinity_queries() -> Iterator[dict[str, Any]]:
    for name, path in dashboards.shipped().items():
        if name.endswith("-http.json"):
            dashboard = json.loads(path.read_text())
            for variable in dashboard["templating"]["list"]:
                yield variable["query"]["infinityQuery"]
            for panel in dashboard["panels"]:
                yield from panel["targets"]


def test_the_dashboards_that_speak_http_ask_what_is_answered(api, paying) -> None:
    """Every address and every column of the Infinity queries, with an API key of two scopes."""
    device = paying.devices[0]
    chosen = {
        "${device}": device, "${metric}": "temp", "${__from}": "0", "${__to}": "4102444800000",
        "${__interval}": "1m",
    }  # fmt: skip

    def fill(text: str) -> str:
        for name, value in chosen.items():
            text = text.replace(name, value)
        assert "$" not in text
        return text

    async def work(client: httpx.AsyncClient) -> None:
        writer = await _headers(api, paying)
        sent = {"temp": 21.5, "on": True}
        await client.post(f"/api/v1/devices/{device}/telemetry", json=sent, headers=writer)
        reader = await _headers(api, paying, "devices:read", "telemetry:read")
        asked = list(_infinity_queries())
        assert len(asked) == 7
        for one in asked:
            params = {item["key"]: fill(item["value"]) for item in one["url_options"]["params"]}
            answer = await client.get(fill(one["url"]), params=params, headers=reader)
            assert answer.status_code == 200, answer.text
            rows = answer.json()[one["root_selector"]]
            assert rows or one["url"].endswith("/events")
            _check(one["columns"], rows)

    api.run(work)
