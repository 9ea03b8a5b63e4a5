"""Metrics over HTTP: what they are called, their kind, and their end."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from paqett.db import Connection
from paqett.erasure import sweep
from paqett.erasure.sweep import Reach
from support import in_database

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def call(api, owner):  # type: ignore[no-untyped-def]
    """Requests below the owner's first device, one after the other; their answers."""

    def ask(*requests: tuple[str, str, Any]) -> list[httpx.Response]:
        answers: list[httpx.Response] = []

        async def work(client: httpx.AsyncClient) -> None:
            headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
            for method, path, body in requests:
                url = f"/api/v1/devices/{owner.devices[0]}/{path}"
                answers.append(await client.request(method, url, headers=headers, json=body))

        api.run(work)
        return answers

    return ask


def add_series(url: str, tenant, metric: str, kind: str = "number") -> int:  # type: ignore[no-untyped-def]
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            (tenant.account_id, tenant.devices[0], metric, kind),
        ).fetchone()
    assert row is not None
    return int(row[0])


def add_reading(url: str, tenant, series: int, table: str, age_s: int, value: Any) -> None:  # type: ignore[no-untyped-def]
    with psycopg.connect(url) as conn:
        conn.execute(
            f"INSERT INTO {table} VALUES (%s, %s, %s, %s)",
            (NOW - timedelta(seconds=age_s), tenant.account_id, series, value),
        )


def test_label_and_unit_are_set_cleared_and_left(call, owner, database_url) -> None:
    add_series(database_url, owner, "t")
    first, second, third, empty, listed = call(
        ("PATCH", "metrics/t", {"label": "Outside", "unit": "°C"}),
        ("PATCH", "metrics/t", {"unit": None}),
        ("PATCH", "metrics/t", {"kind": "boolean"}),
        ("PATCH", "metrics/t", {}),
        ("GET", "metrics", None),
    )
    assert (first.json()["label"], first.json()["unit"]) == ("Outside", "°C")
    assert (second.json()["label"], second.json()["unit"]) == ("Outside", None)
    assert (third.json()["label"], third.json()["kind"]) == ("Outside", "boolean")
    assert empty.json() == third.json() == listed.json()["items"][0]


@pytest.mark.parametrize(
    "name", ["a b", "ü%", "x.y", "%2F", "a?b#c", "{metric}", "metrics", "a..b"]
)
def test_odd_names_are_found(call, owner, database_url, name) -> None:
    add_series(database_url, owner, name)
    path = f"metrics/{quote(name, safe='')}"
    changed, deleted, gone = call(
        ("PATCH", path, {"label": "x"}), ("DELETE", path, None), ("PATCH", path, {"label": "x"})
    )
    assert (changed.status_code, changed.json()["metric"]) == (200, name)
    assert (deleted.status_code, gone.status_code) == (204, 404)


def test_slashes_are_the_dots_they_are_stored_as(call, owner, database_url) -> None:
    for name in ("a.b", "a..b", "a."):
        add_series(database_url, owner, name)
    paths = ["a/b", "a%2Fb", "a%2F%2Fb", "a//b", "a%2F"]
    answers = call(*(("PATCH", f"metrics/{path}", {"label": "x"}) for path in paths))
    assert [a.json()["metric"] for a in answers] == ["a.b", "a.b", "a..b", "a..b", "a."]


@pytest.mark.parametrize("path", ["none", "%00", "%FF", "x" * 300, "%0A"])
def test_an_unknown_metric_is_not_there(call, path) -> None:
    answers = call(
        ("PATCH", f"metrics/{path}", {"label": "x"}), ("DELETE", f"metrics/{path}", None)
    )
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(404, "not_found")] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"label": ""},
        {"label": "x" * 129},
        {"label": "a\nb"},
        {"label": "a\n"},
        {"unit": "x" * 33},
        {"unit": 3},
        {"kind": "colour"},
        {"kind": None},
        {"metric": "other"},
    ],
)
def test_rubbish_is_refused(call, owner, database_url, body) -> None:
    add_series(database_url, owner, "t")
    (answer,) = call(("PATCH", "metrics/t", body))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_deleted_metrics_readings_are_erased_by_a_job(call, owner, database_url) -> None:
    gone, kept = add_series(database_url, owner, "t"), add_series(database_url, owner, "u")
    for series in (gone, kept):
        add_reading(database_url, owner, series, "telemetry_own", 5, 1.0)
        add_reading(database_url, owner, series, "telemetry_own_text", 5, "x")
    (answer,) = call(("DELETE", "metrics/t", None))
    assert answer.status_code == 204
    with psycopg.connect(database_url) as conn:
        job = conn.execute("SELECT task_name, args FROM procrastinate_jobs").fetchone()
        told = conn.execute("SELECT device_id FROM directory_change").fetchall()
    assert job == ("erase_series", {"account_id": owner.account_id, "series_ids": [gone]})
    assert told == [(owner.devices[0],)]

    async def erase(conn: Connection) -> None:
        reach: Reach | None = Reach()
        while reach is not None:
            reach = await sweep.erase_some(conn, owner.account_id, [gone], reach)

    in_database(database_url, erase)
    with psycopg.connect(database_url) as conn:
        for table in ("telemetry_own", "telemetry_own_text"):
            assert conn.execute(f"SELECT series_id FROM {table}").fetchall() == [(kept,)]


def test_a_change_between_number_and_boolean_is_plain(call, owner, database_url) -> None:
    series = add_series(database_url, owner, "t")
    add_reading(database_url, owner, series, "telemetry_own", 5, 1.0)
    _, raw = call(("PATCH", "metrics/t", {"kind": "boolean"}), ("GET", "telemetry", None))
    assert [item["value"] for item in raw.json()["items"]] == [True]
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT mixed FROM series").fetchone() == (False,)
        assert conn.execute("SELECT count(*) FROM directory_change").fetchone() == (1,)


@pytest.mark.parametrize("there_and_back", [False, True])
def test_readings_from_before_and_after_a_change_of_kind_all_come_back(
    call, owner, database_url, there_and_back
) -> None:
    series = add_series(database_url, owner, "t")
    add_reading(database_url, owner, series, "telemetry_own", 30, 1.5)
    call(("PATCH", "metrics/t", {"kind": "text"}))
    add_reading(database_url, owner, series, "telemetry_own_text", 20, "warm")
    (latest,) = call(("GET", "latest", None))
    assert latest.json()["items"][0]["value"] == "warm"
    expected: list[Any] = [1.5, "warm"]
    if there_and_back:
        call(("PATCH", "metrics/t", {"kind": "number"}))
        add_reading(database_url, owner, series, "telemetry_own", 10, 2.5)
        expected.append(2.5)
    asc, desc, latest = call(
        ("GET", "telemetry", None), ("GET", "telemetry?order=desc", None), ("GET", "latest", None)
    )
    assert [item["value"] for item in asc.json()["items"]] == expected
    assert [item["value"] for item in desc.json()["items"]] == expected[::-1]
    assert [item["value"] for item in latest.json()["items"]] == expected[-1:]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_time_in_both_tables_is_one_reading_on_every_page(
    call, owner, database_url, order, limit
) -> None:
    series = add_series(database_url, owner, "t")
    call(("PATCH", "metrics/t", {"kind": "text"}))
    for age in range(5):
        add_reading(database_url, owner, series, "telemetry_own", age, float(age))
        add_reading(database_url, owner, series, "telemetry_own_text", age, "again")
    seen, cursor = [], ""
    while True:
        (page,) = call(("GET", f"telemetry?order={order}&limit={limit}{cursor}", None))
        seen += [item["value"] for item in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            break
        cursor = f"&cursor={page.json()['next_cursor']}"
    assert seen == (list(range(5)) if order == "desc" else list(range(5))[::-1])


def test_a_change_of_kind_and_a_deletion_at_once_do_not_lock_each_other(
    api, owner, database_url
) -> None:
    for number in range(20):
        add_series(database_url, owner, f"m{number}")
    path = f"/api/v1/devices/{owner.devices[0]}"

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {await api.key(owner.account_id)}"}
        body = {"kind": "text", "label": "x"}
        answers = await asyncio.gather(
            *(client.patch(f"{path}/metrics/m{n}", json=body, headers=headers) for n in range(10)),
            client.delete(path, headers=headers),
            *(client.delete(f"{path}/metrics/m{n}", headers=headers) for n in range(10, 20)),
        )
        assert {answer.status_code for answer in answers} <= {200, 204, 404}

    api.run(work)
