"""Devices over HTTP: make, list, change, delete, and the plan's limit."""

import asyncio

import httpx
import psycopg


def test_a_device_is_made_listed_changed_and_deleted(api, owner, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        body = {"thing_name": "kitchen", "tags": ["home"], "mac_address": "08:00:2B:01:02:03"}
        made = (await client.post("/api/v1/devices", json=body, headers=headers)).json()
        assert len(made["secret"]) == 43
        assert made["mac_address"] == "08:00:2b:01:02:03"
        path = f"/api/v1/devices/{made['id']}"
        listed = await client.get("/api/v1/devices?tag=home", headers=headers)
        assert [item["id"] for item in listed.json()["items"]] == [made["id"]]
        assert "secret" not in listed.json()["items"][0]
        change = {"friendly_name": "Kitchen", "mac_address": None, "report_interval": 60}
        changed = (await client.patch(path, json=change, headers=headers)).json()
        assert (changed["friendly_name"], changed["mac_address"]) == ("Kitchen", None)
        assert changed["tags"] == ["home"]
        assert (await client.delete(path, headers=headers)).status_code == 204
        assert (await client.get(path, headers=headers)).status_code == 404

    api.run(work)


def test_the_secret_is_stored_nowhere_in_clear(api, owner, database_url) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        made = (
            await client.post("/api/v1/devices", json={"thing_name": "x"}, headers=headers)
        ).json()
        rotated = await client.post(f"/api/v1/devices/{made['id']}/secret", headers=headers)
        with psycopg.connect(database_url) as conn:
            stored = str(conn.execute("SELECT * FROM device").fetchall())
        assert made["secret"] not in stored
        assert rotated.json()["secret"] not in stored

    api.run(work)


def test_the_plans_limit_holds_for_requests_at_once(api, free_tenant) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(free_tenant.account_id)}"}
        answers = await asyncio.gather(
            *(
                client.post("/api/v1/devices", json={"thing_name": f"d{n}"}, headers=headers)
                for n in range(8)
            )
        )
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [201] * 3 + [409] * 5
        refused = next(answer for answer in answers if answer.status_code == 409).json()
        assert (refused["code"], refused["limit"]) == ("plan_limit", 5)

    api.run(work)


def test_pages_hold_every_device_once(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        for n in range(5):
            await client.post("/api/v1/devices", json={"thing_name": f"n{n}"}, headers=headers)
        seen, cursor = [], None
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/v1/devices", params=params, headers=headers)).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 7

    api.run(work)


def test_rubbish_is_refused(api, owner) -> None:
    bodies = [
        {},
        {"thing_name": ""},
        {"thing_name": "a\u0000b"},
        {"thing_name": "x", "surprise": 1},
        {"thing_name": "x", "mac_address": "zz"},
        {"thing_name": "x", "clock": "sun"},
        {"thing_name": "x", "report_interval": 0},
    ]

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        for body in bodies:
            answer = await client.post("/api/v1/devices", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), body
        answer = await client.post("/api/v1/devices", content=b"{", headers=headers)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"

    api.run(work)


def test_text_the_database_cannot_hold_is_refused(api, owner) -> None:
    path = f"/api/v1/devices/{owner.devices[0]}"

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        for url, field in (
            ("/api/v1/devices?q=%00", "q"),
            ("/api/v1/devices?tag=%00", "tag"),
            ("/api/v1/devices?cursor=MjAyNi0wMS0wMVQwMDowMDowMCBhAGI=", "cursor"),
            (f"{path}/events?cursor=aGVsbG8", "cursor"),
            (f"{path}/telemetry?metrics=%00", "metrics"),
        ):
            answer = await client.get(url, headers=headers)
            assert (answer.status_code, answer.json()["field"]) == (422, field), url
        change = {"mac_address": "08:00:2b:01:02:fff"}
        answer = await client.patch(path, json=change, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (422, "mac_address")

    api.run(work)


def test_changes_at_once_all_last(api, owner) -> None:
    path = f"/api/v1/devices/{owner.devices[0]}"
    changes = [
        {"friendly_name": "Hall"},
        {"firmware_version": "1.2"},
        {"tags": ["home"]},
        {"report_interval": 7},
        {"clock": "server"},
    ]

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        await asyncio.gather(
            *(client.patch(path, json=change, headers=headers) for change in changes)
        )
        device = (await client.get(path, headers=headers)).json()
        for change in changes:
            assert device.items() >= change.items()

    api.run(work)


def test_pages_hold_every_event_once(api, owner, database_url) -> None:
    device = owner.devices[0]
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO device_event (account_id, device_id, time, kind, reason)"
            " SELECT %s, %s, now() - (n / 2) * interval '1 s', 'connected', n::text"
            " FROM generate_series(1, 7) AS n",
            (owner.account_id, device),
        )

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        seen, params = [], {"limit": "3"}
        while True:
            url = f"/api/v1/devices/{device}/events"
            page = (await client.get(url, params=params, headers=headers)).json()
            seen += [event["reason"] for event in page["items"]]
            if page["next_cursor"] is None:
                break
            params["cursor"] = page["next_cursor"]
        assert sorted(seen) == [str(n) for n in range(1, 8)]

    api.run(work)
