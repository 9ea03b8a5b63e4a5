"""Readings over HTTP: every form, each point's fate told, nothing stored answered with 2xx."""

import asyncio
import gzip
import json
import zlib
from base64 import b64encode
from typing import Any

import httpx
import psycopg
import pytest

from paqett import devices
from paqett.flush.writer import Writer
from paqett.mqtt.credentials import verifier
from paqett.readings.incoming import Incoming

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


def ledger(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT h.code, h.points, r.payload, r.payload_bytes"
            " FROM rejection_hour h LEFT JOIN rejection r USING (account_id, device_id, hour, code)"
        ).fetchall()


def test_gzip_of_several_members_is_read_whole(send, owner, database_url) -> None:
    device, account = owner.devices[0], owner.account_id
    members = [b'[{"ts": 1767225600, ', b"", b'"t": 1}, ', b'{"ts": 1767225601, "t": 2}]', b" "]
    packed = b"".join(map(gzip.compress, members))
    answer = send(device, account, packed, content_encoding="gzip")
    assert (answer.status_code, answer.json().get("accepted")) == (200, 2)
    assert counted(database_url) == 2
    spaces = b"".join(gzip.compress(b" " * 100_000) for _ in range(3))
    bomb = send(device, account, spaces, content_encoding="gzip")
    assert (bomb.status_code, bomb.json()["code"]) == (413, "payload_too_large")


def test_gzip_of_endless_empty_members_is_given_up(send, owner, monkeypatch) -> None:
    """A megabyte of them took two seconds, in which nobody was answered."""
    inflating, made = zlib.decompressobj, []
    monkeypatch.setattr("zlib.decompressobj", lambda **how: made.append(1) or inflating(**how))
    empty = gzip.compress(b"")
    answer = send(owner.devices[0], owner.account_id, empty * 50_000, content_encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert len(made) <= 256


PACKED = gzip.compress(b'{"t": 1}')
# the checksum of the second member is wrong
DAMAGED = PACKED + PACKED[:-8] + bytes(8)


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        PACKED[:-9],
        PACKED[:5],
        PACKED + b"junk",
        PACKED + b'{"u": 1}',
        PACKED + PACKED[:-1],
        DAMAGED,
    ],
    ids=["none", "cut short", "a heading", "junk", "json", "a member cut short", "damaged"],
)
def test_broken_gzip_is_refused_and_in_the_ledger(send, owner, database_url, body) -> None:
    answer = send(owner.devices[0], owner.account_id, body, content_encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_json")
    assert [r["code"] for r in answer.json()["rejected"]] == ["bad_json"]
    assert counted(database_url) == 0
    assert ledger(database_url) == [("bad_json", 1, body, len(body))]


@pytest.mark.parametrize("heard", [False, True])
def test_a_device_deleted_while_its_readings_are_on_the_way_is_404(
    send, owner, database_url, monkeypatch, heard
) -> None:
    device, account = owner.devices[0], owner.account_id
    if heard:
        send(device, account, {"t": 0})
    look_up = devices.get

    async def get(*asked: Any) -> Any:
        found = await look_up(*asked)
        with psycopg.connect(database_url) as conn:
            conn.execute("DELETE FROM device WHERE id = %s", (device,))
        return found

    monkeypatch.setattr(devices, "get", get)
    for body in ({"t": 1}, b"{"):
        with psycopg.connect(database_url) as conn:
            conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier)"
                " VALUES (%s, %s, 'again', 'x') ON CONFLICT (id) DO NOTHING",
                (device, account),
            )
        answer = send(device, account, body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert counted(database_url) == int(heard)
    assert ledger(database_url) == []


@pytest.mark.parametrize(
    ("kind", "line"), [("application/x-ndjson", b'{"t": %d}'), ("text/csv", b",t,%d")]
)
def test_ten_thousand_lines_are_taken_and_not_one_more(
    send, owner, database_url, kind, line
) -> None:
    device, account = owner.devices[0], owner.account_id
    lines = [line % number for number in range(10_001)]
    for body in (b"\n".join(lines), b"\n".join(lines) + b"\n", b"\n" * 200_000):
        answer = send(device, account, body, content_type=kind)
        assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
        assert [r["index"] for r in answer.json()["rejected"]] == [0]
    assert counted(database_url) == 0
    for body in (b"\n".join(lines[1:]), b"\n".join(lines[1:]) + b"\n"):
        assert send(device, account, body, content_type=kind).json()["accepted"] == 10_000


@pytest.mark.parametrize("known", [True, False])
def test_a_message_the_database_refuses_is_422_and_its_neighbours_are_stored(
    api, owner, database_url, monkeypatch, known
) -> None:
    device = owner.devices[0]
    attempts: list[list[bytes]] = []
    attempt = Writer._attempt

    async def note(self: Writer, batch: list[Incoming], *more: Any) -> Any:
        attempts.append([message.payload for message in batch])
        return await attempt(self, batch, *more)

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {await api.key(owner.account_id)}"}

        async def one(number: int) -> httpx.Response:
            body = {"ts": 1_767_225_600 + number, "t": number, "u": 666 if number == 7 else 1}
            return await client.post(PATH.format(device), json=body, headers=headers)

        if known:
            assert (await one(100)).status_code == 200
        with psycopg.connect(database_url) as conn:
            conn.execute("ALTER TABLE telemetry_own ADD CHECK (value <> 666)")
        monkeypatch.setattr(Writer, "_attempt", note)
        answers = await asyncio.gather(*(one(number) for number in range(20)))
        for number, answer in enumerate(answers):
            if number != 7:
                told = {"accepted": 2, "duplicates": 0, "rejected": []}
                assert (answer.status_code, answer.json()) == (200, told)
        refused = answers[7].json()
        assert (answers[7].status_code, refused["code"]) == (422, "bad_value")
        assert [(r["index"], r["code"]) for r in refused["rejected"]] == [(0, "bad_value")]

    api.run(work)
    assert max(len(batch) for batch in attempts if any(b"666" in one for one in batch)) > 1
    assert counted(database_url) == 2 * (19 + known)
    found = ledger(database_url)
    assert [(code, points) for code, points, *_ in found] == [("bad_value", 1)]
    assert b"666" in found[0][2]
    with psycopg.connect(database_url) as conn:
        used = conn.execute("SELECT sum(points), sum(duplicates) FROM usage_hour").fetchone()
    assert used == (2 * (19 + known), 0)


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
