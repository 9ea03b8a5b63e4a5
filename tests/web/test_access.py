"""Nobody reads or changes what is not theirs: every endpoint, found in the OpenAPI document."""

from typing import Any

import httpx
import psycopg

BODY = {"post": {"thing_name": "x"}, "patch": {"friendly_name": "taken"}}


async def _operations(client: httpx.AsyncClient) -> list[tuple[str, str, dict[str, Any]]]:
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    return [
        (method, path, operation)
        for path, item in paths.items()
        for method, operation in item.items()
    ]


def test_every_operation_declares_its_security(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        operations = await _operations(client)
        assert len(operations) >= 11
        assert all(operation.get("security") for _, _, operation in operations)

    api.run(work)


def test_without_credentials_everything_is_401(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for method, path, _ in await _operations(client):
            url = path.replace("{device_id}", owner.devices[0])
            for headers in (
                {},
                {"Authorization": "Bearer pqt_wrong"},
                {"Authorization": "Basic eA=="},
            ):
                answer = await client.request(method, url, headers=headers, json=BODY.get(method))
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")

    api.run(work)


def test_another_accounts_device_is_not_there(api, owner, attacker, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(attacker.account_id)}"}
        for method, path, _ in await _operations(client):
            if "{device_id}" not in path:
                continue
            answers = [
                await client.request(
                    method, path.replace("{device_id}", device), headers=headers,
                    json=BODY.get(method),
                )
                for device in (owner.devices[0], "doesnotexist")
            ]  # fmt: skip
            assert {answer.status_code for answer in answers} == {404}
            assert {answer.json()["code"] for answer in answers} == {"not_found"}

    with psycopg.connect(database_url) as conn:
        before = conn.execute("SELECT * FROM device ORDER BY id").fetchall()
    api.run(work)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT * FROM device ORDER BY id").fetchall() == before


def test_a_missing_scope_is_403_and_named(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id, 'alerts')}"}
        for method, path, operation in await _operations(client):
            url = path.replace("{device_id}", owner.devices[0])
            answer = await client.request(method, url, headers=headers, json=BODY.get(method))
            assert answer.status_code == 403
            assert [answer.json()["scope"]] == next(iter(operation["security"][0].values()))

    api.run(work)


def test_a_device_outside_the_keys_allow_list_is_not_there(api, owner) -> None:
    mine, other = owner.devices

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id, devices=[mine])}"}
        listed = (await client.get("/api/v1/devices", headers=headers)).json()["items"]
        assert [device["id"] for device in listed] == [mine]
        for path in ("", "/latest", "/telemetry", "/events", "/metrics"):
            assert (
                await client.get(f"/api/v1/devices/{other}{path}", headers=headers)
            ).status_code == 404

    api.run(work)


def test_metrics_and_details_are_the_operators(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    api.run(work)
