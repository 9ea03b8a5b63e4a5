"""Nobody reads or changes what is not theirs: every endpoint, found in the OpenAPI document."""

from typing import Any

import httpx
import psycopg

BODY = {
    "post": {"thing_name": "x"},
    "patch": {"friendly_name": "taken"},
    "patch /api/v1/devices/{device_id}/metrics/{metric}": {"label": "taken"},
}
TABLES = ("device", "series")


def _body(method: str, path: str) -> Any:
    return BODY.get(f"{method} {path}", BODY.get(method))


def _url(path: str, device: str) -> str:
    return path.replace("{device_id}", device).replace("{metric}", "t")


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
            url = _url(path, owner.devices[0])
            for headers in (
                {},
                {"Authorization": "Bearer pqt_wrong"},
                {"Authorization": "Basic eA=="},
            ):
                answer = await client.request(
                    method, url, headers=headers, json=_body(method, path)
                )
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
                    method, _url(path, device), headers=headers, json=_body(method, path)
                )
                for device in (owner.devices[0], "doesnotexist")
            ]  # fmt: skip
            assert {answer.status_code for answer in answers} == {404}
            assert {answer.json()["code"] for answer in answers} == {"not_found"}

    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind)"
            " VALUES (%s, %s, 't', 'number')",
            (owner.account_id, owner.devices[0]),
        )
        before = [conn.execute(f"SELECT * FROM {t} ORDER BY id").fetchall() for t in TABLES]
    api.run(work)
    with psycopg.connect(database_url) as conn:
        after = [conn.execute(f"SELECT * FROM {t} ORDER BY id").fetchall() for t in TABLES]
    assert after == before


def test_a_missing_scope_is_403_and_named(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id, 'alerts')}"}
        for method, path, operation in await _operations(client):
            url = _url(path, owner.devices[0])
            answer = await client.request(method, url, headers=headers, json=_body(method, path))
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
        for method, path, body in (
            ("POST", "/secret", None),
            ("PATCH", "/metrics/t", {"label": "x"}),
            ("DELETE", "/metrics/t", None),
            ("DELETE", "", None),
        ):
            url = f"/api/v1/devices/{other}{path}"
            answer = await client.request(method, url, headers=headers, json=body)
            assert answer.status_code == 404, url

    api.run(work)


def test_a_key_for_certain_devices_makes_no_others(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        key = await api.key(owner.account_id, devices=[owner.devices[0]])
        headers = {"Authorization": f"Bearer {key}"}
        for path, body in (("", {"thing_name": "x"}), ("/bulk", [{"thing_name": "x"}])):
            answer = await client.post(f"/api/v1/devices{path}", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "key_limited_to_devices")

    api.run(work)


def test_metrics_and_details_are_the_operators(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    api.run(work)
