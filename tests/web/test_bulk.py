"""Many devices in one request: all or none, and the first wrong row named."""

import time
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

URL = "/api/v1/devices/bulk"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


@pytest.fixture
def send(api, owner):  # type: ignore[no-untyped-def]
    """POST a body as the owner; a list is sent as JSON, text as CSV."""

    def post(body: Any, tenant=owner, **headers: str) -> httpx.Response:  # type: ignore[no-untyped-def]
        answers = []

        async def work(client: httpx.AsyncClient) -> None:
            sent = {"Authorization": f"Bearer {await api.key(tenant.account_id)}"} | headers
            if isinstance(body, str):
                sent = CSV | sent
            content = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
            answers.append(await client.post(URL, content=content, headers=sent))

        api.run(work)
        return answers[0]

    return post


def count(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM device").fetchone()
    assert row is not None
    return int(row[0])


def test_devices_come_back_in_order_with_secrets_that_fit(send, database_url) -> None:
    from paqett.mqtt.credentials import matches

    body = [
        {"thing_name": "b", "tags": ["x", "y"], "mac_address": "08002B010203"},
        {"thing_name": "a", "report_interval": 60, "clock": "server"},
    ]
    answer = send(body)
    assert answer.status_code == 201
    made = answer.json()
    assert made["next_cursor"] is None
    assert [item["thing_name"] for item in made["items"]] == ["b", "a"]
    assert made["items"][0]["mac_address"] == "08:00:2b:01:02:03"
    assert made["items"][0]["tags"] == ["x", "y"]
    assert made["items"][1]["data"]["report_interval"] == 60
    with psycopg.connect(database_url) as conn:
        stored = dict(conn.execute("SELECT id, verifier FROM device").fetchall())
    assert all(matches(item["secret"], stored[item["id"]]) for item in made["items"])


def test_csv_says_the_same(send) -> None:
    text = (
        "\ufeffthing_name,tags,report_interval,friendly_name\r\n"
        'kitchen,home; ground floor,60,"Küche, unten"\r\n'
        "\r\n"
        "hall,,,\r\n"
    )
    kitchen, hall = send(text).json()["items"]
    assert kitchen["tags"] == ["home", "ground floor"]
    assert (kitchen["report_interval"], kitchen["friendly_name"]) == (60, "Küche, unten")
    assert (hall["thing_name"], hall["tags"], hall["friendly_name"]) == ("hall", [], None)


OK = {"thing_name": "ok"}


@pytest.mark.parametrize(
    ("body", "status", "index", "field"),
    [
        ([OK, {}], 422, 1, "thing_name"),
        ([OK, {"thing_name": "x", "surprise": 1}], 422, 1, "surprise"),
        ([OK, {"thing_name": "x", "tags": ["a", 1]}], 422, 1, "tags"),
        ([OK, {"thing_name": "x", "mac_address": "zz"}], 422, 1, "mac_address"),
        ([OK, {"thing_name": "x\n"}], 422, 1, "thing_name"),
        ([OK, {"thing_name": "x\x00"}], 422, 1, "thing_name"),
        ([OK, 3], 422, 1, None),
        ([OK, {"thing_name": "ok"}], 409, 1, "thing_name"),
        ([OK, {"thing_name": "owner-0"}], 409, 1, "thing_name"),
        ({"thing_name": "x"}, 422, None, None),
        ([], 422, None, None),
        ("thing_name,report_interval\nok,\nx,soon\n", 422, 1, "report_interval"),
        ("thing_name\nok\n,\n", 422, 1, None),
        ("thing_name,tags\nok,\n,a\n", 422, 1, "thing_name"),
        ("thing_name,colour\nok,red\n", 422, None, "colour"),
        ("friendly_name\nok\n", 422, None, "thing_name"),
        ("thing_name,thing_name\na,b\n", 422, None, "thing_name"),
        ('thing_name\n"ok\n', 422, None, None),
        ("thing_name\nx\0\n", 422, 0, "thing_name"),
        ("", 422, None, "thing_name"),
        ("thing_name\n", 422, None, None),
    ],
)
def test_one_wrong_row_is_named_and_nothing_is_made(
    send, owner, database_url, body, status, index, field
) -> None:
    answer = send(body)
    problem = answer.json()
    assert (answer.status_code, problem.get("index"), problem.get("field")) == (
        status, index, field,
    ), problem  # fmt: skip
    assert count(database_url) == len(owner.devices)


def test_the_plans_limit_holds_for_all_of_them(send, free_tenant, database_url) -> None:
    before = count(database_url)
    answer = send([{"thing_name": f"d{n}"} for n in range(4)], tenant=free_tenant)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "plan_limit")
    assert (problem["limit"], problem["index"]) == (5, 3)
    assert count(database_url) == before
    fitting = send([{"thing_name": f"d{n}"} for n in range(3)], tenant=free_tenant)
    assert fitting.status_code == 201


def test_too_many_and_too_large_are_refused(send, owner, database_url) -> None:
    answer = send([{"thing_name": f"d{n}"} for n in range(1001)])
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
    answer = send("thing_name\n" + "".join(f"d{n}\n" for n in range(1001)))
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
    answer = send([{"thing_name": "x" * 1_100_000}])
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    answer = send([OK], **{"Content-Type": "application/xml"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    answer = send(msgspec.Raw(b"[" * 100_000))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert count(database_url) == len(owner.devices)


def test_a_thousand_devices_are_made_quickly(send, database_url) -> None:
    body = [{"thing_name": f"d{n}", "tags": ["a", "b"]} for n in range(1000)]
    began = time.perf_counter()
    answer = send(body)
    taken = time.perf_counter() - began
    assert answer.status_code == 201
    items = answer.json()["items"]
    assert [item["thing_name"] for item in items] == [f"d{n}" for n in range(1000)]
    assert len({item["secret"] for item in items}) == 1000
    assert count(database_url) == 1002
    assert taken < 3
