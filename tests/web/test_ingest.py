"""Readings over HTTP: every form, each point's fate told, nothing stored answered with 2xx."""

import asyncio
import gzip
import json
from base64 import b64encode
from typing import Any

import httpx
import psycopg
import pytest

from paqett.mqtt.credentials import verifier

PATH = "/api/v1/devices/{}/telemetry"


def counted(url: str, table: str = "telemetry_own") -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def send(api):
    """Sends one body and gives the answer."""

    def send(device: str, account: int, body: Any, **headers: str) -> httpx.Response:
        answers: list[httpx.Response] = []

        async def work(client: httpx.AsyncClient) -> None:
            key = await api.key(account)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            sent |= {name.replace("_", "-"): value for name, value in headers.items()}
            answers.append(await client.post(PATH.format(device), content=content, headers=sent))

        api.run(work)
        return answers[0]

    return send


def test_json_is_stored_before_the_answer(send, owner, database_url) -> None:
    answer = send(owner.devices[0], owner.account_id, {"t": 21.5, "on": True})
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert counted(database_url) == 2


def test_the_same_again_is_counted_as_duplicate_and_still_200(send, owner, database_url) -> None:
    body = [{"ts": "2026-01-01T00:00:00Z", "t": 1}, {"ts": "2026-01-01T00:00:01Z", "t": 2}]
    send(owner.devices[0], owner.account_id, body)
    again = send(
        owner.devices[0], owner.account_id, [*body, {"ts": "2026-01-01T00:00:02Z", "t": 3}]
    )
    assert again.json() == {"accepted": 1, "duplicates": 2, "rejected": []}
    only = send(owner.devices[0], owner.account_id, body)
    assert (only.status_code, only.json()["duplicates"]) == (200, 2)
    assert counted(database_url) == 3


def test_each_refusal_names_its_item_metric_and_code(send, owner) -> None:
    body = [{"t": 1}, {"ts": "soon", "t": 2}, {"t": [1]}, {"t": "warm"}]
    answer = send(owner.devices[0], owner.account_id, body)
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    found = [(r["index"], r["metric"], r["code"]) for r in answer.json()["rejected"]]
    assert sorted(found, key=str) == sorted(
        [(1, None, "bad_ts"), (2, "t", "bad_value"), (3, "t", "type_conflict")], key=str
    )


def test_ndjson_costs_a_bad_line_only_itself(send, owner, database_url) -> None:
    body = b'{"t": 1}\n\n{broken\n{"ts": "2026-01-01T00:00:00Z", "t": 2}\r\n'
    answer = send(owner.devices[0], owner.account_id, body, content_type="application/x-ndjson")
    assert answer.json()["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer.json()["rejected"]] == [(1, "bad_json")]
    assert counted(database_url) == 2


def test_csv_is_time_metric_value(send, owner, database_url) -> None:
    body = b"time,metric,value\n2026-01-01T00:00:00Z,t,21.5\n1767225601,on,ON\n,mode,auto\nx,t,1\n"
    answer = send(owner.devices[0], owner.account_id, body, content_type="text/csv; charset=utf-8")
    assert answer.json()["accepted"] == 3
    assert [(r["index"], r["code"]) for r in answer.json()["rejected"]] == [(3, "bad_ts")]
    assert counted(database_url) == 2
    assert counted(database_url, "telemetry_own_text") == 1


def test_gzip_is_read_and_a_bomb_is_refused(send, owner, database_url) -> None:
    device, account = owner.devices[0], owner.account_id
    packed = gzip.compress(b'{"t": 1}')
    assert send(device, account, packed, content_encoding="gzip").json()["accepted"] == 1
    bomb = send(device, account, gzip.compress(b" " * 50_000_000), content_encoding="gzip")
    assert (bomb.status_code, bomb.json()["code"]) == (413, "payload_too_large")
    for body in (b"not gzip", packed[:-9]):
        answer = send(device, account, body, content_encoding="gzip")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_json")
    assert send(device, account, packed, content_encoding="br").status_code == 415
    assert counted(database_url) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad_json"),
        (b"", "bad_json"),
        (b"{}", "bad_json"),
        (b'{"t": null}', "bad_json"),
        (b"21.5", "bad_json"),
        (b'{"t": 9007199254740993}', "bad_value"),
        (b'{"ts": "2099-01-01T00:00:00Z", "t": 1}', "ts_in_future"),
        (b'{"ts": 12, "t": 1}', "clock_not_set"),
        (json.dumps([{"t": 1}] * 501).encode(), "too_many_items"),
    ],
)
def test_nothing_stored_is_never_2xx(send, owner, database_url, body, code) -> None:
    answer = send(owner.devices[0], owner.account_id, body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert counted(database_url) == 0


def test_a_kind_of_body_that_is_not_read_is_415(send, owner) -> None:
    answer = send(owner.devices[0], owner.account_id, {"t": 1}, content_type="application/xml")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_the_plans_message_size_is_413(send, free_tenant) -> None:
    body = {"t": "x" * 40_000}
    answer = send(free_tenant.devices[0], free_tenant.account_id, body)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_the_message_rate_is_429_and_says_when_to_come_back(api, free_tenant) -> None:
    device = free_tenant.devices[0]

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {await api.key(free_tenant.account_id)}"}
        answers = [
            await client.post(PATH.format(device), json={"t": n}, headers=headers)
            for n in range(70)
        ]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 5 <= len(refused) <= 10
        assert refused[0].json()["code"] == "rate_limited"
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].headers["ratelimit-policy"] == '"messages";q=60;w=60'
        assert refused[0].headers["ratelimit"] == '"messages";r=0;t=1'

    api.run(work)


def test_a_device_sends_its_own_readings_with_its_secret_and_no_others(
    api, owner, database_url
) -> None:
    mine, other = owner.devices
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE device SET verifier = %s WHERE id = %s", (verifier("hush"), mine))

    def basic(user: str, password: str) -> dict[str, str]:
        return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

    async def work(client: httpx.AsyncClient) -> None:
        async def status(device: str, user: str, password: str) -> int:
            answer = await client.post(
                PATH.format(device), json={"t": 1}, headers=basic(user, password)
            )
            return answer.status_code

        assert await status(mine, mine, "hush") == 200
        assert await status(mine, mine, "wrong") == 401
        assert await status(mine, "nobody", "hush") == 401
        assert await status(mine, "\0", "hush") == 401
        assert await status(other, mine, "hush") == 404
        read = await client.get(PATH.format(mine), headers=basic(mine, "hush"))
        assert read.status_code == 401

    api.run(work)
    assert counted(database_url) == 1


def test_many_requests_at_once_are_each_told_their_own_fate(api, owner, database_url) -> None:
    device = owner.devices[0]

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {await api.key(owner.account_id)}"}

        async def one(number: int) -> httpx.Response:
            body = {"ts": 1_767_225_600 + number // 2, "t": number}
            if number % 10 == 9:
                body["t"] = "text"
            return await client.post(PATH.format(device), json=body, headers=headers)

        await one(0)
        answers = await asyncio.gather(*(one(number) for number in range(1, 100)))
        for number, answer in enumerate(answers, 1):
            assert answer.status_code == (422 if number % 10 == 9 else 200)
        accepted = sum(answer.json().get("accepted", 0) for answer in answers)
        assert accepted + 1 == counted(database_url)

    api.run(work)


def test_usage_and_rejections_tell_what_happened(api, free_tenant, attacker) -> None:
    device = free_tenant.devices[0]

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {await api.key(free_tenant.account_id)}"}
        url = PATH.format(device)
        body = [{"t": 1}, {"ts": "-", "t": 2}, {"ts": "2026-11-24T00:00:00Z"}]
        await client.post(url, json=body, headers=headers)
        await client.post(url, content=b"{", headers=headers)
        usage = (await client.get("/api/v1/usage", headers=headers)).json()
        assert usage["plan"] == "free"
        assert usage["today"]["points"] == usage["quota"]["used"] == 1
        assert usage["quota"]["limit"] == 250_000
        assert usage["today"]["rejected"] == {"bad_json": 1, "bad_ts": 1}
        assert [row["device"] for row in usage["devices"]] == [device]
        assert usage["late_bucket"] == {"left": 250_000, "limit": 250_000}
        path = "/api/v1/usage/rejections"
        page = (await client.get(path, headers=headers)).json()
        assert [row["code"] for row in page["items"]] == ["bad_json", "bad_ts"]
        assert page["items"][0]["examples"][0]["payload"] == "{"
        first = (await client.get(path, params={"limit": 1}, headers=headers)).json()
        rest = {"limit": 1, "cursor": first["next_cursor"]}
        second = (await client.get(path, params=rest, headers=headers)).json()
        assert [first["items"][0], second["items"][0]] == page["items"]
        assert second["next_cursor"] is None
        stranger = {"authorization": f"Bearer {await api.key(attacker.account_id)}"}
        assert (await client.get(path, headers=stranger)).json()["items"] == []
        foreign = await client.get(path, params={"device": device}, headers=stranger)
        assert foreign.json()["items"] == []

    api.run(work)
