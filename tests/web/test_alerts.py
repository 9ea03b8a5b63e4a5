"""Alert rules, alerts and channels over HTTP."""

from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest

THRESHOLD = {"name": "Warm", "kind": "threshold", "metric": "t", "operator": ">", "threshold": 30}


async def headers_for(api, account_id: int, *scopes: str, **more: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {await api.key(account_id, *scopes, **more)}"}


def run(api, tenant, work: Any, *scopes: str, **more: Any) -> None:
    """`work(ask)` with a client that sends a key of the tenant's."""

    async def runner(client: httpx.AsyncClient) -> None:
        headers = await headers_for(api, tenant.account_id, *scopes, **more)

        async def ask(method: str, path: str, **rest: Any) -> httpx.Response:
            return await client.request(method, f"/api/v1{path}", headers=headers, **rest)

        await work(ask)

    api.run(runner)


def test_a_rule_is_made_listed_changed_and_deleted(api, owner) -> None:
    async def work(ask: Any) -> None:
        body = {**THRESHOLD, "clear": 28, "for": "5m", "device_id": owner.devices[0]}
        made = await ask("POST", "/alert-rules", json=body)
        assert made.status_code == 201, made.text
        rule = made.json()
        told = {name: rule[name] for name in body}
        assert told == {**body, "for": 300}
        assert (rule["enabled"], rule["firing"]) == (True, 0)
        path = f"/alert-rules/{rule['id']}"
        change = {"name": "Hot", "threshold": 40, "clear": None, "device_id": None, "for": 0}
        changed = (await ask("PATCH", path, json=change)).json()
        assert {name: changed[name] for name in change} == change
        assert changed["metric"] == "t"
        listed = (await ask("GET", "/alert-rules")).json()
        assert listed == {"items": [changed], "next_cursor": None}
        assert (await ask("DELETE", path)).status_code == 204
        assert (await ask("DELETE", path)).status_code == 404
        assert (await ask("PATCH", path, json=change)).status_code == 404
        assert (await ask("POST", f"{path}/test")).status_code == 404

    run(api, owner, work, "alerts")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "threshold", "metric": "t", "operator": ">"}, "threshold"),
        ({"kind": "threshold", "metric": "t", "threshold": 1}, "operator"),
        ({"kind": "threshold", "operator": ">", "threshold": 1}, "metric"),
        ({**THRESHOLD, "clear": 31}, "clear"),
        ({**THRESHOLD, "operator": "<", "clear": 29}, "clear"),
        ({**THRESHOLD, "operator": "==", "clear": 29}, "clear"),
        ({**THRESHOLD, "threshold": True}, "operator"),
        ({**THRESHOLD, "for": "soon"}, "for"),
        ({**THRESHOLD, "for": -1}, "for"),
        ({**THRESHOLD, "for": "8d"}, "for"),
        ({"kind": "no_data", "for": 5}, "for"),
        ({"kind": "no_data", "threshold": 5}, "threshold"),
        ({"kind": "offline", "metric": "t"}, "metric"),
        ({**THRESHOLD, "operator": "~"}, None),
        ({**THRESHOLD, "kind": "other"}, None),
        ({**THRESHOLD, "threshold": "warm"}, None),
        ({**THRESHOLD, "unknown": 1}, None),
        ({**THRESHOLD, "name": ""}, None),
        ({**THRESHOLD, "device_id": "a\u0000b"}, None),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_and_its_member_named(
    api, owner, body, field
) -> None:
    async def work(ask: Any) -> None:
        answer = await ask("POST", "/alert-rules", json={"name": "x", **body})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        if field:
            assert answer.json()["field"] == field

    run(api, owner, work)


def test_the_defaults_of_for_are_told(api, owner) -> None:
    async def work(ask: Any) -> None:
        for body, seconds in (
            (THRESHOLD, 0),
            ({"name": "x", "kind": "no_data"}, 900),
            ({"name": "x", "kind": "offline"}, 60),
        ):
            assert (await ask("POST", "/alert-rules", json=body)).json()["for"] == seconds

    run(api, owner, work)


def test_the_plan_limits_the_rules_of_requests_at_once_too(api, free_tenant) -> None:
    import asyncio

    async def work(ask: Any) -> None:
        answers = await asyncio.gather(
            *(ask("POST", "/alert-rules", json=THRESHOLD) for _ in range(5))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert (refused.json()["code"], refused.json()["limit"]) == ("plan_limit", 3)

    run(api, free_tenant, work)


def test_a_rule_about_somebody_elses_device_is_about_none(api, owner, attacker) -> None:
    async def work(ask: Any) -> None:
        body = {**THRESHOLD, "device_id": owner.devices[0]}
        assert (await ask("POST", "/alert-rules", json=body)).status_code == 404
        rule = (await ask("POST", "/alert-rules", json=THRESHOLD)).json()
        change = {"device_id": owner.devices[0]}
        answer = await ask("PATCH", f"/alert-rules/{rule['id']}", json=change)
        assert answer.status_code == 404

    run(api, attacker, work)


def test_a_key_for_certain_devices_sees_and_makes_rules_about_these_alone(api, owner) -> None:
    mine, other = owner.devices

    async def everything(ask: Any) -> None:
        for device in (mine, other, None):
            body = {**THRESHOLD, "device_id": device}
            assert (await ask("POST", "/alert-rules", json=body)).status_code == 201

    run(api, owner, everything)

    async def work(ask: Any) -> None:
        items = (await ask("GET", "/alert-rules")).json()["items"]
        assert [item["device_id"] for item in items] == [mine]
        own = f"/alert-rules/{items[0]['id']}"
        for body, status in (
            ({**THRESHOLD, "device_id": mine}, 201), ({**THRESHOLD, "device_id": other}, 404),
            (THRESHOLD, 403),
        ):  # fmt: skip
            assert (await ask("POST", "/alert-rules", json=body)).status_code == status
        for change, status in (({"device_id": other}, 404), ({"device_id": None}, 403)):
            assert (await ask("PATCH", own, json=change)).status_code == status
        for number in (1, 2):
            assert (await ask("DELETE", f"{own[:-1]}{number + 1}")).status_code == 404
        assert (await ask("GET", f"/alerts?device={other}")).status_code == 404
        for method, path in (
            ("GET", "/channels"), ("POST", "/channels/0/test"), ("DELETE", "/channels/1"),
        ):  # fmt: skip
            answer = await ask(method, path)
            assert answer.json()["code"] == "key_limited_to_devices"

    run(api, owner, work, devices=[mine])


def test_a_reading_over_http_makes_an_alert_that_is_listed(api, owner) -> None:
    device = owner.devices[0]

    async def work(ask: Any) -> None:
        rule = (await ask("POST", "/alert-rules", json=THRESHOLD)).json()
        for value in (31, 1, 32):
            await ask("POST", f"/devices/{device}/telemetry", json={"t": value})
        items = (await ask("GET", "/alerts")).json()["items"]
        assert [(i["state"], i["value"], i["device"]) for i in items] == [
            ("firing", 32, device), ("resolved", 31, device),
        ]  # fmt: skip
        assert items[0]["rule_id"] == rule["id"]
        assert (await ask("GET", "/alert-rules")).json()["items"][0]["firing"] == 1
        for question, count in (
            ("state=firing", 1), ("state=pending", 0), (f"device={device}", 2),
            (f"device={owner.devices[1]}", 0), (f"rule={rule['id']}", 2), ("rule=999", 0),
        ):  # fmt: skip
            found = (await ask("GET", f"/alerts?{question}")).json()["items"]
            assert len(found) == count, question
        page = (await ask("GET", "/alerts?limit=1")).json()
        rest = (await ask("GET", f"/alerts?limit=1&cursor={page['next_cursor']}")).json()
        assert [page["items"][0]["id"], rest["items"][0]["id"]] == [i["id"] for i in items]
        for wrong in ("state=odd", "cursor=x", "cursor=99999999999999999999", "limit=0"):
            assert (await ask("GET", f"/alerts?{wrong}")).status_code == 422
        await ask("DELETE", f"/alert-rules/{rule['id']}")
        first = (await ask("GET", "/alerts")).json()["items"][0]
        assert (first["state"], first["reason"], first["rule_id"]) == (
            "resolved", "rule_deleted", None,
        )  # fmt: skip

    run(api, owner, work)


def test_a_test_replays_the_last_day_and_tells_nobody(api, owner, database_url) -> None:
    device = owner.devices[0]
    start = api.now().replace(microsecond=0) - timedelta(hours=3)

    def at(minutes: int) -> str:
        return (start + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")

    async def work(ask: Any) -> None:
        readings = [(0, 20), (10, 31), (12, 29), (14, 35), (20, 33), (30, 27), (40, 31), (42, 20)]
        body = [{"ts": at(minute), "t": value} for minute, value in readings]
        await ask("POST", f"/devices/{device}/telemetry", json=body)
        for fields, expected in (
            ({}, [(10, 12, 31), (14, 30, 35), (40, 42, 31)]),
            ({"clear": 28}, [(10, 30, 31), (40, 42, 31)]),
            ({"for": "5m"}, [(19, 30, 35)]),
            ({"threshold": 40}, []),
            ({"operator": "<", "threshold": 21}, [(0, 10, 20), (42, None, 20)]),
        ):
            rule = await ask("POST", "/alert-rules", json={**THRESHOLD, **fields})
            answer = await ask("POST", f"/alert-rules/{rule.json()['id']}/test")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert told["fired"] == len(expected)
            assert told["items"] == [
                {
                    "device": device,
                    "fired_at": at(fired),
                    "resolved_at": None if resolved is None else at(resolved),
                    "value": value,
                }
                for fired, resolved, value in expected
            ]
        silence = {"name": "x", "kind": "no_data", "for": "9m", "device_id": device}
        rule = (await ask("POST", "/alert-rules", json=silence)).json()
        told = (await ask("POST", f"/alert-rules/{rule['id']}/test")).json()
        gaps = [(item["fired_at"], item["resolved_at"]) for item in told["items"]]
        assert gaps[1:] == [
            (at(9), at(10)), (at(29), at(30)), (at(39), at(40)), (at(51), None),
        ]  # fmt: skip
        assert (await ask("GET", "/alerts")).json()["items"] == []

    run(api, owner, work)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM notice").fetchone() == (0,)


def test_a_test_of_connections_replays_the_brokers_record(api, owner, database_url) -> None:
    device = owner.devices[0]
    start = api.now() - timedelta(hours=3)
    with psycopg.connect(database_url) as conn:
        for minutes, kind in (
            (0, "connected"), (10, "disconnected"), (11, "refused"), (20, "connected"),
            (30, "disconnected"), (31, "connected"), (60, "disconnected"),
        ):  # fmt: skip
            conn.execute(
                "INSERT INTO device_event (account_id, device_id, time, kind)"
                " VALUES (%s, %s, %s, %s)",
                (owner.account_id, device, start + timedelta(minutes=minutes), kind),
            )

    async def work(ask: Any) -> None:
        body = {"name": "Away", "kind": "offline", "for": "5m"}
        rule = (await ask("POST", "/alert-rules", json=body)).json()
        told = (await ask("POST", f"/alert-rules/{rule['id']}/test")).json()
        assert told["fired"] == 2
        first, second = told["items"]
        assert first["resolved_at"] is not None
        assert second["resolved_at"] is None

    run(api, owner, work)


def test_a_channel_is_made_tested_and_deleted_and_its_secret_shown_once(api, owner) -> None:
    async def work(ask: Any) -> None:
        body = {"url": "https://hooks.example.org/in?key=1", "name": "Pager"}
        made = (await ask("POST", "/channels", json=body)).json()
        assert made["secret"].startswith("whsec_")
        items = (await ask("GET", "/channels")).json()["items"]
        assert [(i["id"], i["kind"], i["address"]) for i in items] == [
            (0, "mail", "owner@example.org"), (made["id"], "webhook", None),
        ]  # fmt: skip
        assert "secret" not in items[1]
        rotated = (await ask("POST", f"/channels/{made['id']}/secret")).json()
        assert rotated["secret"] != made["secret"]
        tested = await ask("POST", f"/channels/{made['id']}/test")
        assert tested.status_code == 202
        log = (await ask("GET", "/channels")).json()["items"][1]["deliveries"]
        assert [(d["id"], d["event"], d["state"], d["attempts"]) for d in log] == [
            (tested.json()["delivery"], "test", "waiting", [])
        ]
        assert (await ask("POST", "/channels/0/test")).json() == {"delivery": None}
        for method, path in (("DELETE", "/channels/0"), ("POST", "/channels/0/secret")):
            assert (await ask(method, path)).json()["code"] == "mail_built_in"
        assert (await ask("DELETE", f"/channels/{made['id']}")).status_code == 204
        assert (await ask("POST", f"/channels/{made['id']}/test")).status_code == 404

    run(api, owner, work, "alerts")


@pytest.mark.parametrize(
    "url", ["http://example.org/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "nothing"]
)
def test_an_address_no_webhook_may_have_is_refused(api, owner, url) -> None:
    async def work(ask: Any) -> None:
        answer = await ask("POST", "/channels", json={"url": url})
        assert (answer.status_code, answer.json()["field"]) == (422, "url")

    run(api, owner, work)


def test_an_account_has_ten_webhooks(api, owner) -> None:
    async def work(ask: Any) -> None:
        for status in [201] * 10 + [409]:
            answer = await ask("POST", "/channels", json={"url": "https://example.org/"})
            assert answer.status_code == status

    run(api, owner, work)


def test_a_new_webhook_is_a_security_notice_without_its_path(api, owner, database_url) -> None:
    async def work(ask: Any) -> None:
        await ask("POST", "/channels", json={"url": "https://hooks.example.org/secret-path"})

    run(api, owner, work)
    with psycopg.connect(database_url) as conn:
        kind, data = conn.execute("SELECT kind, data::text FROM notice").fetchone()
    assert kind == "security"
    assert "hooks.example.org" in data
    assert "secret-path" not in data
