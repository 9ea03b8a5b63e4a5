"""Nobody reads or changes what is not theirs: every endpoint, found in the OpenAPI document."""

from datetime import timedelta
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from paqett.principals import SCOPES
from people import Person, mailed, new_person

BODY = {
    "post": {"thing_name": "x"},
    "patch": {"friendly_name": "taken"},
    "patch /api/v1/devices/{device_id}/metrics/{metric}": {"label": "taken"},
    "patch /api/v1/alert-rules/{rule_id}": {"name": "taken"},
}
# Whoever has no account yet, or is not signed in, must be able to call these.
PUBLIC = {
    "post /api/v1/auth/register",
    "post /api/v1/auth/verify-email",
    "post /api/v1/auth/login",
    "post /api/v1/auth/password-reset",
    "post /api/v1/auth/password-reset/confirm",
    "get /api/v1/auth/{provider}/start",
    "get /api/v1/auth/{provider}/callback",
    "post /hooks/stripe",  # signed by Stripe
}
# These name something that everybody has of their own, not a thing of one account's.
EVERYBODYS = {"get /api/v1/grafana/{file}"}
# What bookkeeping changes when somebody merely asks.
BOOKKEEPING = {"last_used_at", "last_used_ip", "seen_at"}


class Operation(msgspec.Struct, frozen=True):
    """One method of one path, and the ways in that it declares."""

    method: str
    path: str
    security: list[dict[str, list[str]]]
    answers: str

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def scopes(self) -> list[str]:
        """The scopes a key needs; none where a key is not enough."""
        return next((way["apiKey"] for way in self.security if "apiKey" in way), [])

    @property
    def is_public(self) -> bool:
        return self.security == [{}]

    def url(self, ids: dict[str, Any]) -> str:
        return self.path.format_map(ids)

    @property
    def body(self) -> Any:
        return BODY.get(self.name, BODY.get(self.method))


async def operations(client: httpx.AsyncClient) -> list[Operation]:
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    return [
        Operation(method, path, operation.get("security", []), str(operation["responses"]))
        for path, item in paths.items()
        for method, operation in item.items()
    ]


@pytest.fixture
def victim(database_url, owner) -> dict[str, Any]:
    """Every kind of thing an account has, by the name of the path parameter that names it."""
    with psycopg.connect(database_url) as conn:
        device = owner.devices[0]
        conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind)"
            " VALUES (%s, %s, 't', 'number')",
            (owner.account_id, device),
        )
        key = conn.execute(
            "INSERT INTO api_key (account_id, name, hint, hash, scopes)"
            " VALUES (%s, 'k', 'pqt_k', 'k', '{export}') RETURNING id",
            (owner.account_id,),
        ).fetchone()
        session = conn.execute(
            "INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at,"
            " expires_at) VALUES (%s, 's', 'password', now(), now(), now(), now() + '1 day')"
            " RETURNING id",
            (owner.account_id,),
        ).fetchone()
        rule = conn.execute(
            "INSERT INTO alert_rule (account_id, name, kind, for_s, created_at, changed_at)"
            " VALUES (%s, 'r', 'no_data', 60, now(), now()) RETURNING id",
            (owner.account_id,),
        ).fetchone()
        conn.execute(
            "INSERT INTO alert (account_id, rule_id, rule_name, kind, device_id, state, since,"
            " reason) VALUES (%s, %s, 'r', 'no_data', %s, 'firing', now(), 'no_data')",
            (owner.account_id, rule and rule[0], device),
        )
        channel = conn.execute(
            "INSERT INTO channel (account_id, name, url, secret, created_at)"
            " VALUES (%s, 'c', 'https://owner@example.org/', 's', now()) RETURNING id",
            (owner.account_id,),
        ).fetchone()
        export = conn.execute(
            "INSERT INTO export (account_id, format, status, created_at, expires_at)"
            " VALUES (%s, 'csv', 'ready', now(), now() + '7 days') RETURNING id",
            (owner.account_id,),
        ).fetchone()
        assert key
        assert session
        assert rule
        assert channel
        assert export
    return {
        "device_id": device, "metric": "t", "key_id": key[0], "session_id": session[0],
        "provider": "github", "file": "paqett-grafana.zip", "rule_id": rule[0],
        "channel_id": channel[0], "export_id": export[0],
    }  # fmt: skip


ABSENT = {
    "device_id": "doesnotexist", "metric": "t", "key_id": 999_999, "session_id": 999_999,
    "provider": "nosuch", "file": "nosuch", "rule_id": 999_999, "channel_id": 999_999,
    "export_id": 999_999,
}  # fmt: skip


def state(url: str, account_id: int) -> dict[str, list[Any]]:
    """Everything the database knows of an account."""
    found = {}
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as conn:
        tables = conn.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'account_id'"
        ).fetchall()
        for table in sorted(row["table_name"] for row in tables):
            rows = conn.execute(
                f"SELECT * FROM {table} WHERE account_id = %s", (account_id,)
            ).fetchall()
            kept = [{k: v for k, v in row.items() if k not in BOOKKEEPING} for row in rows]
            found[table] = sorted(kept, key=str)
        found["account"] = conn.execute(
            "SELECT * FROM account WHERE id = %s", (account_id,)
        ).fetchall()
    assert {"device", "series", "session", "api_key", "telemetry_own"} <= set(found)
    return found


def test_every_operation_declares_its_security_and_only_known_ones_are_public(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        found = await operations(client)
        assert len(found) >= 30
        assert {operation.name for operation in found if not operation.security} == set()
        assert {operation.name for operation in found if operation.is_public} == PUBLIC
        for operation in found:
            if not operation.is_public:
                assert {"session": []} in operation.security, operation.name

    api.run(work)


def test_every_path_parameter_is_known_here(api, victim) -> None:
    """A new kind of thing must be added to what the other tests try to steal."""

    async def work(client: httpx.AsyncClient) -> None:
        for operation in await operations(client):
            operation.url(victim)
            operation.url(ABSENT)

    api.run(work)


def test_without_credentials_everything_is_401(api, victim) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for operation in await operations(client):
            if operation.is_public:
                continue
            api.later(timedelta(minutes=2))  # wrong credentials are limited by the minute
            for headers in (
                {},
                {"Authorization": "Bearer pqt_wrong"},
                {"Authorization": "Basic eA=="},
                {"Authorization": "Digest x"},
                {"Cookie": "paqett_session=wrong"},
            ):
                answer = await client.request(
                    operation.method, operation.url(victim), headers=headers, json=operation.body
                )
                told = (answer.status_code, answer.json()["code"])
                assert told == (401, "unauthorized"), operation.name

    api.run(work)


def test_another_accounts_things_are_not_there(api, owner, attacker, victim, database_url) -> None:
    before = state(database_url, owner.account_id)

    async def work(client: httpx.AsyncClient) -> None:
        thief = await new_person(client, api.settings, "thief@example.org")
        cookie = client.cookies["paqett_session"]
        client.cookies.clear()
        by_session = {"Cookie": f"paqett_session={cookie}", "X-CSRF-Token": thief.csrf}
        by_key = {"Authorization": f"Bearer {await api.key(attacker.account_id)}"}
        tried = 0
        for operation in await operations(client):
            if "{" not in operation.path or operation.is_public or operation.name in EVERYBODYS:
                continue
            for headers in (by_key, by_session) if operation.scopes else (by_session,):
                answers = [
                    await client.request(
                        operation.method, operation.url(ids), headers=headers, json=operation.body
                    )
                    for ids in (victim, ABSENT)
                ]
                assert [answer.status_code for answer in answers] == [404, 404], operation.name
                assert {answer.json()["code"] for answer in answers} == {"not_found"}
                tried += 1
        assert tried >= 25

    api.run(work)
    assert state(database_url, owner.account_id) == before


def test_a_list_holds_nothing_of_anybody_else(api, owner, victim) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        thief = await new_person(client, api.settings, "thief@example.org")
        for operation in await operations(client):
            if "text/event-stream" in operation.answers:
                continue  # tests/web/test_streams.py listens to these
            if operation.method == "get" and "{" not in operation.path:
                answer = await thief.ask("GET", operation.path.removeprefix("/api/v1"))
                assert answer.status_code == 200, operation.name
                assert victim["device_id"] not in answer.text
                assert "owner@example.org" not in answer.text

    api.run(work)


def test_a_missing_scope_is_403_and_named(api, owner, victim) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for operation in await operations(client):
            for scope in operation.scopes:
                key = await api.key(owner.account_id, *(SCOPES - {scope}))
                headers = {"Authorization": f"Bearer {key}"}
                answer = await client.request(
                    operation.method, operation.url(victim), headers=headers, json=operation.body
                )
                assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
                assert answer.json()["scope"] == scope

    api.run(work)


def test_a_key_with_every_scope_does_not_open_what_is_a_persons_own(api, owner, victim) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        tried = 0
        for operation in await operations(client):
            if not operation.scopes and not operation.is_public:
                answer = await client.request(
                    operation.method, operation.url(victim), headers=headers, json=operation.body
                )
                told = (answer.status_code, answer.json()["code"])
                assert told == (403, "session_required"), operation.name
                tried += 1
        assert tried >= 14

    api.run(work)


def test_a_write_by_cookie_without_the_token_changes_nothing(api, victim, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        account = (await person.ask("GET", "/account")).json()["id"]
        before = state(database_url, account)
        for operation in await operations(client):
            if operation.is_public or operation.method == "get":
                continue
            for headers in ({}, {"X-CSRF-Token": "0" * 64}):
                answer = await client.request(
                    operation.method, operation.url(victim), headers=headers, json=operation.body
                )
                told = (answer.status_code, answer.json()["code"])
                assert told == (403, "csrf_failed"), operation.name
        assert state(database_url, account) == before

    api.run(work)


def test_a_device_outside_the_keys_allow_list_is_not_there(api, owner) -> None:
    mine, other = owner.devices

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id, devices=[mine])}"}
        listed = (await client.get("/api/v1/devices", headers=headers)).json()["items"]
        assert [device["id"] for device in listed] == [mine]
        tried = 0
        for operation in await operations(client):
            if "{device_id}" in operation.path and operation.scopes:
                url = operation.url({**ABSENT, "device_id": other})
                answer = await client.request(
                    operation.method, url, headers=headers, json=operation.body
                )
                assert answer.status_code == 404, operation.name
                tried += 1
        assert tried >= 11

    api.run(work)


def test_a_key_for_certain_devices_makes_no_others(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        key = await api.key(owner.account_id, devices=[owner.devices[0]])
        headers = {"Authorization": f"Bearer {key}"}
        for path, body in (("", {"thing_name": "x"}), ("/bulk", [{"thing_name": "x"}])):
            answer = await client.post(f"/api/v1/devices{path}", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "key_limited_to_devices")

    api.run(work)


def test_a_stolen_session_ends_with_the_password_it_was_stolen_under(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        stolen = {"Cookie": f"paqett_session={client.cookies['paqett_session']}"}
        client.cookies.clear()
        assert (await client.get("/api/v1/account", headers=stolen)).status_code == 200
        token = await mailed(api.settings, person.email, "reset_password")
        body = {"token": token, "password": "a different one"}
        await client.post("/api/v1/auth/password-reset/confirm", json=body)
        assert (await client.get("/api/v1/account", headers=stolen)).status_code == 401
        thief = Person(client, person.email)
        assert (await thief.sign_in()).status_code == 401

    api.run(work)


def test_metrics_and_details_are_the_operators(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    api.run(work)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"PAQETT_HTTP__HOST": "192.0.2.1", "PAQETT_HTTP__ALLOW_PLAIN": "true"}, 404),
        ({"PAQETT_HTTP__TRUSTED_PROXIES": "127.0.0.1"}, 404),
        ({"PAQETT_PAQETT__PUBLIC_URL": "https://paqett.example.org"}, 404),
    ],
)
def test_metrics_without_a_token_never_leave_this_machine(make_api, more, status: int) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/metrics")).status_code == status
        assert ("version" in (await client.get("/readyz")).json()) is (status == 200)

    make_api(PAQETT_OPS__OPEN_ON_API="true", **more).run(work)


def test_only_the_operator_hears_why_an_api_is_not_ready(make_api, database_url: str) -> None:
    token = "t" * 40

    async def work(client: httpx.AsyncClient) -> None:
        with psycopg.connect(database_url) as conn:
            conn.execute("DELETE FROM schema_migration WHERE name LIKE '0070%'")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
        told = await client.get("/readyz", headers={"Authorization": f"Bearer {token}"})
        assert "0070_beside" in told.json()["reason"]

    make_api(PAQETT_OPS__TOKEN=token).run(work)
