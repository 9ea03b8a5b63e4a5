"""What the contract says of queries beside the figures: forms, names, limits, refusals."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from paqett.readings.packed import Packed
from paqett.web import queries, tables

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = NOW.replace(minute=0, second=0) - timedelta(hours=3)


class Place:
    """Puts readings of a tenant; asks with its key."""

    def __init__(self, api: Any, url: str, tenant: Any) -> None:
        self.api, self.url, self.tenant = api, url, tenant
        self.device = tenant.devices[0]

    def put(
        self, readings: list[tuple[datetime, Any]], metric: str = "t", kind: str = "number",
        device: str | None = None, table: str | None = None,
    ) -> None:  # fmt: skip
        text = "_text" if kind == "text" else ""
        with psycopg.connect(self.url) as conn, conn.cursor() as cursor:
            row = cursor.execute(
                "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (device_id, metric) DO UPDATE SET metric = EXCLUDED.metric"
                " RETURNING id",
                (self.tenant.account_id, device or self.device, metric, kind),
            ).fetchone()
            assert row is not None
            cursor.executemany(
                f"INSERT INTO {table or 'telemetry_own' + text} VALUES (%s, %s, %s, %s)",
                [(time, self.tenant.account_id, row[0], value) for time, value in readings],
            )

    def ask(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        answers = []

        async def work(client: httpx.AsyncClient) -> None:
            key = await self.api.key(self.tenant.account_id)
            for method, path, more in requests:
                sent = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
                answers.append(await client.request(method, f"/api/v1{path}", headers=sent, **more))

        self.api.run(work)
        return answers

    def get(self, query: str = "", accept: str | None = None) -> httpx.Response:
        path = f"/devices/{self.device}/telemetry?{query}"
        return self.ask(("GET", path, {"headers": {"Accept": accept} if accept else {}}))[0]

    def post(self, **members: Any) -> httpx.Response:
        return self.ask(("POST", "/telemetry/query", {"json": members}))[0]


@pytest.fixture
def place(api, database_url, owner) -> Place:
    return Place(api, database_url, owner)


def z(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def test_rows_are_flat_and_say_what_the_contract_says(place) -> None:
    place.put([(HOUR + timedelta(minutes=n), n) for n in range(4)])
    raw = place.get(f"from={z(HOUR)}&to={z(HOUR + timedelta(minutes=1))}").json()
    assert raw == {
        "items": [{"time": z(HOUR), "device": place.device, "metric": "t", "value": 0.0}],
        "next_cursor": None,
        "from": z(HOUR),
        "to": z(HOUR + timedelta(minutes=1)),
    }
    several = place.get(f"from={z(HOUR)}&bucket=1h&agg=max,count").json()
    assert several["items"] == [
        {"time": z(HOUR), "device": place.device, "metric": "t", "max": 3.0, "count": 4}
    ]
    single = place.get(f"from={z(HOUR)}&bucket=1h").json()["items"]
    assert single == [
        {"time": z(HOUR), "device": place.device, "metric": "t", "avg": 1.5, "value": 1.5}
    ]


def test_empty_parameters_are_not_given(place) -> None:
    place.put([(NOW - timedelta(hours=1), 1), (NOW - timedelta(hours=30), 2)])
    empty = "metrics=&from=&to=&bucket=&agg=&tz=&fill=&order=&cursor="
    assert [item["value"] for item in place.get(empty).json()["items"]] == [1.0]


def test_fill_says_what_is_in_empty_buckets(place) -> None:
    place.put([(HOUR + timedelta(minutes=5), 1), (HOUR + timedelta(minutes=25), 3)])
    place.put([(HOUR - timedelta(days=3), 1)], metric="silent")
    span = f"from={z(HOUR)}&to={z(HOUR + timedelta(minutes=40))}&bucket=10m"
    answers = {
        fill: [item["value"] for item in place.get(f"{span}&fill={fill}").json()["items"]]
        for fill in ("none", "null", "previous")
    }
    assert answers == {
        "none": [1.0, 3.0], "null": [1.0, None, 3.0, None], "previous": [1.0, 1.0, 3.0, 3.0],
    }  # fmt: skip


def test_fill_looks_at_nothing_outside_the_range(place) -> None:
    place.put([(HOUR - timedelta(minutes=5), 1), (HOUR + timedelta(minutes=15), 2)])
    span = f"from={z(HOUR)}&to={z(HOUR + timedelta(minutes=30))}&bucket=10m"
    items = place.get(f"{span}&fill=previous&agg=count,last").json()["items"]
    assert [(item["count"], item["last"]) for item in items] == [(None, None), (1, 2.0), (1, 2.0)]
    assert items[0]["time"] == z(HOUR)


def test_an_open_end_is_filled_up_to_now(place) -> None:
    place.put([(datetime.now(UTC) - timedelta(minutes=50), 1)])
    items = place.get("from=-1h&bucket=10m&fill=null").json()["items"]
    assert 6 <= len(items) <= 8
    assert datetime.fromisoformat(items[-1]["time"]) <= datetime.now(UTC)


def test_kinds_have_the_aggregates_that_make_sense(place) -> None:
    times = [HOUR + timedelta(minutes=n) for n in range(4)]
    place.put(list(zip(times, [1, 0, 1, 1], strict=True)), "on", "boolean")
    place.put(list(zip(times, ["a", "b", "c", "d"], strict=True)), "mode", "text")
    every = "avg,min,max,sum,count,first,last,p50"
    on, mode = place.get(f"from={z(HOUR)}&bucket=1h&agg={every}").json()["items"]
    assert {name: on[name] for name in every.split(",")} == {
        "avg": 0.75, "min": False, "max": True, "sum": 3.0, "count": 4, "first": True,
        "last": True, "p50": 1.0,
    }  # fmt: skip
    assert on["max"] is True
    assert {name: mode[name] for name in every.split(",")} == {
        "avg": None, "min": None, "max": None, "sum": None, "count": 4, "first": "a",
        "last": "d", "p50": None,
    }  # fmt: skip
    numbers = place.get(f"from={z(HOUR)}&bucket=1h&agg=avg").json()["items"]
    assert [item["metric"] for item in numbers] == ["on"]
    refused = place.get(f"from={z(HOUR)}&bucket=1h&agg=avg&metrics=mode")
    assert (refused.status_code, refused.json()["field"]) == (422, "agg")
    assert "count, first, last" in refused.json()["detail"]


def test_readings_from_before_a_change_of_kind_are_not_computed_with(place, database_url) -> None:
    place.put([(HOUR, "old"), (HOUR + timedelta(minutes=1), "both")], "m", "text")
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE series SET kind = 'number', mixed = true")
    place.put(
        [(HOUR + timedelta(minutes=1), 5), (HOUR + timedelta(minutes=2), 7)], "m",
        table="telemetry_own",
    )  # fmt: skip
    raw = [item["value"] for item in place.get(f"from={z(HOUR)}&limit=10").json()["items"]]
    assert raw == ["old", 5.0, 7.0]
    assert [item["value"] for item in place.get(f"from={z(HOUR)}&order=desc").json()["items"]] == [
        7.0, 5.0, "old",
    ]  # fmt: skip
    [row] = place.get(f"from={z(HOUR)}&bucket=1h&agg=count,sum").json()["items"]
    assert (row["count"], row["sum"]) == (2, 12.0)
    pages, cursor = [], ""
    while cursor is not None:
        page = place.get(f"from={z(HOUR)}&limit=1&cursor={cursor}").json()
        pages += [item["value"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert pages == raw


def test_several_devices_are_asked_at_once(place, owner, attacker) -> None:
    for device in owner.devices:
        place.put([(HOUR, 1)], device=device)
    place.put([(HOUR, 2)], metric="a,b", device=owner.devices[1])
    asked = {"devices": owner.devices, "from": int(HOUR.timestamp() * 1000), "to": z(NOW)}
    items = place.post(**asked).json()["items"]
    assert sorted(item["device"] for item in items) == sorted([*owner.devices, owner.devices[1]])
    [only] = place.post(**asked, metrics=["a,b"]).json()["items"]
    assert only["value"] == 2.0
    again = place.post(**{**asked, "devices": [*owner.devices, *owner.devices]}).json()["items"]
    assert again == items
    for foreign in (attacker.devices[0], "nothing", "", "\0", "x" * 999):
        answer = place.post(**{**asked, "devices": [owner.devices[0], foreign]})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"devices": []}, "devices"), ({"devices": ["d"] * 1001}, "devices"), ({}, None),
        ({"devices": "d"}, "devices"), ({"limit": 10_001}, "limit"), ({"limit": 0}, "limit"),
        ({"points": 10**30}, "points"), ({"fill": None, "bucket": "1h"}, "fill"),
        ({"bucket": "1h", "agg": ["mean"]}, "agg"), ({"bucket": "1h", "agg": "avg,x"}, "agg"),
        ({"metrics": ["\0"]}, "metrics"), ({"from": 10**40}, "from"), ({"from": -5}, "from"),
        ({"format": "csv"}, None), ({"device": "d"}, None), ({"metrics": "t"}, "metrics"),
        ({"from": 1.5}, "from"), ({"order": "up"}, "order"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_named(place, members, field) -> None:
    if members and "devices" not in members:
        members = {"devices": [place.device], **members}
    answer = place.post(**members)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    if field is not None:
        assert field in json.dumps([answer.json().get("field"), answer.json()["detail"]])


def test_a_body_that_is_no_object_is_refused(place) -> None:
    for body in (b"[]", b"{", b"null", b"\xff", b'"x"'):
        [answer] = place.ask(
            ("POST", "/telemetry/query",
             {"content": body, "headers": {"Content-Type": "application/json"}})
        )  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), body


def test_unknown_parameters_are_named_everywhere(place) -> None:
    device = place.device
    for method, path in (
        ("GET", f"/devices/{device}/telemetry?bukcet=1h"),
        ("POST", "/telemetry/query?bukcet=1h"),
        ("GET", f"/devices/{device}/latest?bukcet=1h"),
        ("GET", "/latest?bukcet=1h"),
        ("DELETE", f"/devices/{device}/telemetry?bukcet=1h"),
    ):
        [answer] = place.ask((method, path, {"json": {"devices": [device]}}))
        assert (answer.status_code, answer.json()["field"]) == (422, "bukcet")


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"), ("text/*", "text/csv"),
        ("application/ndjson", "application/x-ndjson"), ("image/png", None),
        ("application/jsonl", "application/x-ndjson"),
        ("application/json;q=0.1, text/csv", "text/csv"),
    ],
)  # fmt: skip
def test_the_client_says_in_which_form_it_wants_rows(place, accept, answered) -> None:
    place.put([(NOW - timedelta(minutes=1), 1)])
    headers = {"Accept": accept} if accept else {"Accept": ""}
    for path in (
        f"/devices/{place.device}/telemetry",
        f"/devices/{place.device}/latest",
        "/latest",
    ):
        [answer] = place.ask(("GET", path, {"headers": dict(headers)}))
        if answered is None:
            assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
        else:
            assert answer.status_code == 200
            assert answer.headers["content-type"].partition(";")[0] == answered


def test_latest_holds_the_same_columns_in_every_form(place) -> None:
    place.put([(NOW - timedelta(minutes=1), 21.5), (NOW - timedelta(minutes=2), 1)])
    place.put([(NOW - timedelta(minutes=1), 1)], "on", "boolean")
    place.put([(NOW - timedelta(minutes=1), 'say "hi", twice')], "mode", "text")
    path = f"/devices/{place.device}/latest"
    as_json, as_csv, as_lines = (
        place.ask(("GET", path, {"headers": {"Accept": accept}}))[0]
        for accept in ("application/json", "text/csv", "application/x-ndjson")
    )
    items = as_json.json()["items"]
    assert [list(item) for item in items] == 3 * [
        ["device", "metric", "kind", "unit", "time", "value"]
    ]
    assert {item["metric"]: item["value"] for item in items} == {
        "t": 21.5, "on": True, "mode": 'say "hi", twice',
    }  # fmt: skip
    assert [json.loads(line) for line in as_lines.text.splitlines()] == items
    rows = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert [row["value"] for row in rows] == ['say "hi", twice', "true", "21.5"]
    assert [list(row) for row in rows] == [list(item) for item in items]


def test_csv_with_a_limit_says_where_the_next_page_begins(place) -> None:
    place.put([(HOUR + timedelta(minutes=n), n) for n in range(5)])
    values, cursor = [], ""
    while cursor is not None:
        answer = place.get(f"from={z(HOUR)}&limit=2&cursor={cursor}", "text/csv")
        values += [row["value"] for row in csv.DictReader(io.StringIO(answer.text))]
        cursor = answer.headers.get("next-cursor")
    assert values == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    whole = place.get(f"from={z(HOUR)}", "text/csv")
    assert whole.text.count("\n") == 6
    assert "next-cursor" not in whole.headers


def written(place: Place) -> tuple[list[Any], list[Any]]:
    """What CSV and NDJSON hold from `HOUR` on, as rows of the same shape."""
    text = place.get(f"from={z(HOUR)}", "text/csv").text
    lines = place.get(f"from={z(HOUR)}", "application/x-ndjson").text.splitlines()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    return [{**row, "value": float(row["value"])} for row in rows], list(map(json.loads, lines))


def test_a_long_csv_of_numbers_holds_what_ndjson_holds(place, monkeypatch) -> None:
    packed, packed_lines = [], tables.packed_lines

    def noted(page: Packed, labels: Any) -> bytes:
        packed.append(len(page))
        return packed_lines(page, labels)

    monkeypatch.setattr(queries, "_STREAMED_ROWS", 3)
    monkeypatch.setattr(tables, "packed_lines", noted)
    values = [0.1, -0.0, 1e300, 5e-324, 2**53, 123456.789, 1e16]
    times = [HOUR + timedelta(microseconds=n * 333_333) for n in range(len(values))]
    for metric in ("t", 'a,"b"'):
        place.put(list(zip(times, values, strict=True)), metric=metric)
    as_csv, as_lines = written(place)
    assert packed == [3, 3, 3, 3, 2]
    assert len(as_csv) == 14
    assert as_csv == as_lines


def test_a_long_csv_takes_both_tiers_while_a_move_is_open(place, monkeypatch) -> None:
    monkeypatch.setattr(queries, "_STREAMED_ROWS", 2)
    place.put([(HOUR + timedelta(minutes=n), n) for n in (0, 2, 4)])
    place.put([(HOUR + timedelta(minutes=n), n) for n in (1, 3)], table="telemetry_paid")
    with psycopg.connect(place.url) as conn:
        moving = "UPDATE account SET moving_from = 'paid' WHERE id = %s"
        conn.execute(moving, (place.tenant.account_id,))
    as_csv, as_lines = written(place)
    assert [row["value"] for row in as_csv] == [0, 1, 2, 3, 4]
    assert as_csv == as_lines


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("state", ["number", "boolean", "text", "mixed", "moving", "empty"])
def test_one_metric_is_answered_as_it_is_among_others(place, order, state) -> None:
    values = {"boolean": [1, 0, 1, 1, 0], "text": list("abcde"), "empty": []}.get(state, range(5))
    readings = [(HOUR + timedelta(minutes=n), value) for n, value in enumerate(values)]
    kind = state if state in ("boolean", "text") else "number"
    place.put(readings[:3] if state == "moving" else readings, kind=kind)
    with psycopg.connect(place.url, autocommit=True) as conn:
        if state == "mixed":
            conn.execute("UPDATE series SET mixed = true")
            place.put([(HOUR + timedelta(seconds=90), "x")], kind="text")
        if state == "moving":
            place.put(readings[3:], table="telemetry_paid")
            conn.execute("UPDATE account SET moving_from = 'paid'")
    span = f"from={z(HOUR)}&to={z(HOUR + timedelta(hours=1))}&order={order}&limit=2"
    pages: dict[str, list[Any]] = {"t": [], "t,another": []}
    for metrics, found in pages.items():
        cursor: str | None = ""
        while cursor is not None:
            page = place.get(f"{span}&metrics={metrics}&cursor={cursor}").json()
            found.append(page["items"])
            assert page["from"] == z(HOUR)
            cursor = page["next_cursor"]
    assert pages["t"] == pages["t,another"]
    stored = [item for page in pages["t"] for item in page]
    assert len(stored) == {"mixed": 6, "empty": 0}.get(state, 5)


def test_one_metric_of_a_device_that_is_not_ours_is_404(place) -> None:
    for device in ("nobody", "%00", "x%0Ay"):
        answer = place.ask(("GET", f"/devices/{device}/telemetry?metrics=t", {}))[0]
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_empty_range_is_a_heading_and_nothing_else(place) -> None:
    assert place.get("from=-1h", "text/csv").text == "time,device,metric,value\n"
    assert place.get("from=-1h", "application/x-ndjson").text == ""
    assert place.get(f"from={z(HOUR)}&to={z(HOUR)}").json()["items"] == []
    place.put([(HOUR, 1)])
    assert place.get(f"from={z(HOUR)}&to={z(HOUR)}&bucket=1h&fill=null").json()["items"] == []
    text = place.get("from=-1h&bucket=1h&agg=min,max&metrics=nothing", "text/csv").text
    assert text == "time,device,metric,min,max\n"


def test_a_leap_second_is_the_second_after_it(place) -> None:
    place.put([(HOUR, 1)])
    answer = place.get("from=2016-12-31T23:59:60Z")
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 1


def test_a_range_ends_where_nothing_can_be_stored(place) -> None:
    answer = place.get("from=-1h&to=9999-12-31T00:00:00Z&bucket=1s&fill=null").json()
    assert datetime.fromisoformat(answer["to"]) < datetime.now(UTC) + timedelta(days=2)


def test_a_sum_beyond_a_double_is_told(place) -> None:
    place.put([(HOUR + timedelta(minutes=n), 1.7e308 * sign) for n, sign in ((0, 1), (1, 1))])
    place.put([(HOUR, 1.7e308), (HOUR + timedelta(minutes=1), -1.7e308)], "u")
    for query in ("agg=sum&metrics=t", "agg=avg&metrics=t", "agg=p50&metrics=u"):
        answer = place.get(f"from={z(HOUR)}&bucket=1h&{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, "agg")
    [row] = place.get(f"from={z(HOUR)}&bucket=1h&agg=max&metrics=t").json()["items"]
    assert row["max"] == 1.7e308


def test_points_says_which_bucket_it_has_picked(place) -> None:
    place.put([(NOW - timedelta(hours=n), n) for n in range(20)])
    answer = place.get("from=-24h&points=50&agg=max")
    assert answer.headers["paqett-bucket"] == "30m"
    assert place.get("from=-365d&points=400").headers["paqett-bucket"] == "1d"
    assert place.get("from=-2s&points=1000").headers["paqett-bucket"] == "5ms"
    first = place.get("from=-24h&points=50&agg=max&limit=3").json()
    assert first["next_cursor"] is not None
    rest = place.get(f"from=-24h&points=50&agg=max&cursor={first['next_cursor']}").json()
    assert first["items"] + rest["items"] == answer.json()["items"]


def test_points_chooses_by_what_may_be_read(api, database_url, free_tenant) -> None:
    place = Place(api, database_url, free_tenant)
    assert place.get("from=0&points=200").headers["paqett-bucket"] == "1h"


def test_the_document_says_what_can_be_asked_and_answered(api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        paths = (await client.get("/schema/openapi.json")).json()["paths"]
        one = paths["/api/v1/devices/{device_id}/telemetry"]["get"]
        assert {p["name"] for p in one["parameters"] if p["in"] == "query"} == {
            "metrics", "from", "to", "bucket", "agg", "tz", "fill", "points", "order", "limit",
            "cursor",
        }  # fmt: skip
        assert all(p.get("description") for p in one["parameters"] if p["in"] == "query")
        many = paths["/api/v1/telemetry/query"]["post"]
        for operation in (one, many):
            assert {"200", "401", "403", "406", "422", "503"} <= set(operation["responses"])
            assert "400" not in operation["responses"]
            assert set(operation["responses"]["200"]["content"]) == {
                "application/json", "text/csv", "application/x-ndjson",
            }  # fmt: skip
            assert {"Next-Cursor", "Paqett-Bucket"} <= set(operation["responses"]["200"]["headers"])
        for latest in ("/api/v1/latest", "/api/v1/devices/{device_id}/latest"):
            assert "text/csv" in paths[latest]["get"]["responses"]["200"]["content"]
        removal = paths["/api/v1/devices/{device_id}/telemetry"]["delete"]
        assert {"202", "204", "401", "403", "404", "422", "503"} <= set(removal["responses"])
        assert "404" in one["responses"]
        assert "404" in many["responses"]
        schema = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]["Asked"]
        assert {"devices", "from", "to", "bucket"} <= set(schema["properties"])
        assert schema["required"] == ["devices"]

    api.run(work)
