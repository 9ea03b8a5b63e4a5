"""Devices over HTTP: make, list, change, delete, and the plan's limit."""

import asyncio
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

NOW = datetime.now(UTC)


@pytest.fixture
def api(make_api):  # type: ignore[no-untyped-def]
    """Its clock stands still: how long ago something was does not depend on when a test runs."""
    frozen = make_api()
    frozen.frozen = NOW
    return frozen


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
        {"thing_name": "a\n"},
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
    beyond_the_calendar = b64encode(b"9999-12-31T23:59:59-23:59 a").decode()

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        for url, field in (
            ("/api/v1/devices?q=%00", "q"),
            ("/api/v1/devices?tag=%00", "tag"),
            ("/api/v1/devices?cursor=MjAyNi0wMS0wMVQwMDowMDowMCBhAGI=", "cursor"),
            (f"/api/v1/devices?cursor={beyond_the_calendar}", "cursor"),
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


@pytest.fixture
def show(api, owner):  # type: ignore[no-untyped-def]
    """The owner's first device, and the ids the list gives for each query string."""

    def ask(*queries: str) -> Any:
        found: list[Any] = []

        async def work(client: httpx.AsyncClient) -> None:
            headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
            url = f"/api/v1/devices/{owner.devices[0]}"
            found.append((await client.get(url, headers=headers)).json())
            for query in queries:
                listed = await client.get(f"/api/v1/devices?{query}", headers=headers)
                assert listed.status_code == 200, listed.text
                found.append([item["id"] for item in listed.json()["items"]])
            listed = await client.get("/api/v1/devices", headers=headers)
            assert found[0] in listed.json()["items"]

        api.run(work)
        return found if queries else found[0]

    return ask


def connect(url: str, device: str, state: str, seen: datetime | None) -> None:
    with psycopg.connect(url) as conn:
        conn.execute(
            "UPDATE device SET connection = %s, connection_since = %s, connection_reason = 'why',"
            " connection_ip = '192.0.2.1' WHERE id = %s",
            (state, NOW - timedelta(hours=1), device),
        )
        if seen is not None:
            conn.execute(
                "INSERT INTO broker_record (seen_at) VALUES (%s)"
                " ON CONFLICT (singleton) DO UPDATE SET seen_at = EXCLUDED.seen_at",
                (seen,),
            )


@pytest.mark.parametrize("state", ["online", "offline"])
def test_a_connection_is_shown_while_the_broker_is_heard_of(
    show, owner, database_url, state
) -> None:
    connect(database_url, owner.devices[0], state, datetime.now(UTC))
    device, same, unknown = show(f"status={state}", "status=unknown")
    since = datetime.fromisoformat(device["connection"].pop("since"))
    assert since == NOW - timedelta(hours=1)
    assert device["connection"] == {"status": state, "reason": "why", "ip": "192.0.2.1"}
    assert (same, unknown) == ([owner.devices[0]], [])


@pytest.mark.parametrize("state", ["online", "offline"])
def test_a_connection_is_unknown_once_the_brokers_record_is_missing(
    show, owner, database_url, state
) -> None:
    seen = NOW.replace(microsecond=0) - timedelta(seconds=90)
    connect(database_url, owner.devices[0], state, seen)
    device, same, unknown, never = show(f"status={state}", "status=unknown", "status=never")
    assert device["connection"]["status"] == "unknown"
    assert datetime.fromisoformat(device["connection"]["since"]) == seen
    assert device["connection"]["reason"] == (
        f"the broker's record is missing since {seen:%Y-%m-%dT%H:%M:%S}Z"
    )
    assert (same, unknown, never) == ([], [owner.devices[0]], [owner.devices[1]])


def test_without_any_record_of_a_broker_a_connection_is_unknown(show, owner, database_url) -> None:
    connect(database_url, owner.devices[0], "online", None)
    connection = show()["connection"]
    assert (connection["status"], connection["since"]) == ("unknown", None)
    assert connection["reason"] == "the broker's record is missing"


def add_hour(  # type: ignore[no-untyped-def]
    url: str, tenant, first: timedelta | None, last: timedelta | None, arrivals: int
) -> None:
    """An hour of usage whose first and last fresh reading are so old, or which has none."""
    with psycopg.connect(url) as conn:
        conn.execute(
            "INSERT INTO usage_hour"
            " (account_id, device_id, hour, first_fresh_at, last_fresh_at, arrivals)"
            " VALUES (%s, %s, date_trunc('hour', %s), %s, %s, %s)",
            (
                tenant.account_id, tenant.devices[0], NOW - (last or timedelta(0)),
                None if first is None else NOW - first,
                None if last is None else NOW - last,
                arrivals,
            ),
        )  # fmt: skip


def data_of(show, *queries: str) -> Any:  # type: ignore[no-untyped-def]
    """The device's freshness; the list's filter must agree with it."""
    device, *lists = show("data=never", "data=fresh", "data=stale")
    status = device["data"]["status"]
    for name, ids in zip(("never", "fresh", "stale"), lists, strict=True):
        assert (device["id"] in ids) == (name == status)
    return device["data"]


def test_a_device_that_never_sent_has_no_data(show) -> None:
    expected = {"status": "never", "last_at": None, "report_interval": None, "learned": False}
    assert data_of(show) == expected


def test_late_readings_alone_leave_a_device_without_fresh_data(show, owner, database_url) -> None:
    add_hour(database_url, owner, None, None, 0)
    assert data_of(show)["status"] == "never"


@pytest.mark.parametrize(("age_s", "status"), [(1500, "fresh"), (1900, "stale")])
def test_a_set_interval_decides(show, owner, database_url, age_s, status) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE device SET report_interval_s = 600")
    age = timedelta(seconds=age_s)
    add_hour(database_url, owner, age + timedelta(minutes=20), age, 3000)
    data = data_of(show)
    assert datetime.fromisoformat(data.pop("last_at")) == NOW - age
    assert data == {"status": status, "report_interval": 600, "learned": False}


@pytest.mark.parametrize(("age_s", "status"), [(500, "fresh"), (1000, "stale")])
def test_an_interval_is_learned_over_hours(show, owner, database_url, age_s, status) -> None:
    age, hour = timedelta(seconds=age_s), timedelta(hours=1)
    begun = age + timedelta(seconds=300 * 120)
    add_hour(database_url, owner, begun, age + 3 * hour, 60)
    add_hour(database_url, owner, age + 0.9 * hour, age, 61)
    add_hour(database_url, owner, timedelta(hours=60), timedelta(hours=50), 1000)
    data = data_of(show)
    assert (data["report_interval"], data["learned"]) == (300, True)
    assert data["status"] == status


@pytest.mark.parametrize(("age", "status"), [(2.9, "fresh"), (3.1, "stale"), (1000, "stale")])
def test_without_an_interval_an_hour_is_assumed(show, owner, database_url, age, status) -> None:
    last = timedelta(hours=age)
    add_hour(database_url, owner, last + timedelta(seconds=1), last, 2)
    data = data_of(show)
    assert (data["report_interval"], data["learned"]) == (None, False)
    assert data["status"] == status
    assert datetime.fromisoformat(data["last_at"]) == NOW - last


def test_a_burst_teaches_no_interval_below_a_second(show, owner, database_url) -> None:
    age = timedelta(seconds=60)
    add_hour(database_url, owner, age, age, 50)
    assert data_of(show)["report_interval"] == 1


def test_another_accounts_usage_is_not_mistaken_for_ones_own(
    show, owner, attacker, database_url
) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO usage_hour (account_id, device_id, hour, last_fresh_at)"
            " VALUES (%s, %s, now(), now())",
            (attacker.account_id, owner.devices[0]),
        )
    assert data_of(show)["status"] == "never"


def test_a_page_asks_the_indices_device_by_device(owner, database_url) -> None:
    """Were the status a function the planner cannot see into, every device might be looked at."""
    from paqett.sqlfiles import query

    values: dict[str, Any] = dict.fromkeys(
        ("allowed", "tag", "status", "data", "text", "after_time", "after_id")
    )
    values |= {"account": owner.account_id, "now": NOW, "limit": 10}
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO device (id, account_id, thing_name, verifier)"
            " SELECT 'd' || n, %s, 'd' || n, '' FROM generate_series(1, 5000) AS n",
            (owner.account_id,),
        )
        conn.execute("ANALYZE device")
        explain = f"EXPLAIN (ANALYZE, COSTS OFF) {query('list_devices')}"
        plan = "\n".join(row[0] for row in conn.execute(explain, values))
    assert "Function Scan" not in plan
    assert "device_account" in plan
    assert "rows=10 loops=1" in plan
    assert "rows=5002 " not in plan


def test_a_field_that_there_is_not_or_that_is_missing_is_named(api, owner) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        for body, field, said in (
            ({"name": "probe"}, "name", "there are thing_name, friendly_name, "),
            ({}, "thing_name", "missing"),
            ({"thing_name": 5}, "thing_name", "str"),
        ):
            refused = await client.post("/api/v1/devices", headers=headers, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
            assert refused.json()["field"] == field
            assert said in refused.json()["detail"]

    api.run(work)
