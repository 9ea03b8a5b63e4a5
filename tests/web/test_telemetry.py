"""Reading over HTTP: raw, in buckets, latest; clamped, paged, and whole during a move."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest

from paqett import accounts, db
from paqett.readings import read
from paqett.readings.query import Query

NOW = datetime.now(UTC).replace(microsecond=0)


def put(
    url: str, device: str, account: int, tier: str, readings, kind="number", metric="t"
) -> None:
    suffix = "_text" if kind == "text" else ""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (device_id, metric) DO UPDATE SET metric = EXCLUDED.metric RETURNING id",
            (account, device, metric, kind),
        ).fetchone()
        assert row is not None
        for time, value in readings:
            conn.execute(
                f"INSERT INTO telemetry_{tier}{suffix} VALUES (%s, %s, %s, %s)",
                (time, account, row[0], value),
            )


@pytest.fixture
def ask(api, owner):  # type: ignore[no-untyped-def]
    """GET below the owner's first device; the JSON answer."""

    def get(*paths: str, tenant=owner, status: int = 200):  # type: ignore[no-untyped-def]
        answers = []

        async def work(client: httpx.AsyncClient) -> None:
            headers = {"Authorization": f"Bearer {await api.key(tenant.account_id)}"}
            for path in paths:
                url = f"/api/v1/devices/{tenant.devices[0]}/{path}"
                answer = await client.get(url, headers=headers)
                assert answer.status_code == status, answer.text
                answers.append(answer.json())

        api.run(work)
        return answers[0] if len(answers) == 1 else answers

    return get


def test_raw_readings_come_with_their_kinds(ask, owner, database_url) -> None:
    device, account = owner.devices[0], owner.account_id
    put(database_url, device, account, "own", [(NOW, 21.5)])
    put(database_url, device, account, "own", [(NOW, 1)], "boolean", "on")
    put(database_url, device, account, "own", [(NOW, "auto")], "text", "mode")
    answer, latest = ask("telemetry", "latest")
    assert {(i["metric"], i["value"]) for i in answer["items"]} == {
        ("t", 21.5), ("on", True), ("mode", "auto"),
    }  # fmt: skip
    assert {i["time"] for i in answer["items"]} == {NOW.isoformat().replace("+00:00", "Z")}
    assert {(i["metric"], i["kind"], i["value"]) for i in latest["items"]} == {
        ("t", "number", 21.5), ("on", "boolean", True), ("mode", "text", "auto"),
    }  # fmt: skip


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_hold_every_reading_once(ask, owner, database_url, order) -> None:
    readings = [(NOW - timedelta(seconds=n), n) for n in range(25)]
    put(database_url, owner.devices[0], owner.account_id, "own", readings)
    put(database_url, owner.devices[0], owner.account_id, "own", readings, metric="u")
    seen, cursor = [], ""
    while True:
        page = ask(f"telemetry?limit=7&order={order}{cursor}")
        seen += [(i["time"], i["metric"]) for i in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 50
    times = [time for time, _ in seen]
    assert times == sorted(times, reverse=order == "desc")


def test_a_range_is_half_open(ask, owner, database_url) -> None:
    readings = [(NOW - timedelta(seconds=n), n) for n in (10, 20, 30)]
    put(database_url, owner.devices[0], owner.account_id, "own", readings)
    start = int((NOW - timedelta(seconds=30)).timestamp() * 1000)
    end = (NOW - timedelta(seconds=10)).isoformat().replace("+", "%2B")
    items = ask(f"telemetry?from={start}&to={end}")["items"]
    assert [item["value"] for item in items] == [30, 20]


def test_buckets_agree_with_a_plain_computation(ask, owner, database_url) -> None:
    base = NOW.replace(minute=0, second=0) - timedelta(hours=2)
    readings = [(base + timedelta(seconds=37 * n), (n * n) % 17) for n in range(100)]
    put(database_url, owner.devices[0], owner.account_id, "own", readings)
    answer = ask("telemetry?bucket=5m&agg=avg,min,max,count&from=-6h")
    expected: dict[datetime, list[float]] = {}
    for time, value in readings:
        start = time - timedelta(minutes=time.minute % 5, seconds=time.second)
        expected.setdefault(start, []).append(value)
    assert len(answer["items"]) == len(expected)
    for item in answer["items"]:
        values = expected[datetime.fromisoformat(item["time"])]
        assert item["count"] == len(values)
        assert (item["min"], item["max"]) == (min(values), max(values))
        assert item["avg"] == pytest.approx(sum(values) / len(values))
    single = ask("telemetry?bucket=5m&agg=max&from=-6h")["items"][0]
    assert single["value"] == single["max"]


def test_nothing_older_than_the_retention_is_read_even_before_it_is_dropped(
    ask, free_tenant, database_url
) -> None:
    readings = [(NOW - timedelta(days=7, minutes=5), 1), (NOW - timedelta(days=6), 2)]
    put(database_url, free_tenant.devices[0], free_tenant.account_id, "free", readings)
    answer, latest = ask("telemetry?from=-30d", "latest", tenant=free_tenant)
    assert [item["value"] for item in answer["items"]] == [2]
    assert datetime.fromisoformat(answer["from"]) > NOW - timedelta(days=7, minutes=1)
    assert [item["value"] for item in latest["items"]] == [2]


def test_what_had_expired_before_an_upgrade_stays_expired(ask, owner, database_url) -> None:
    base = (NOW - timedelta(days=3)).replace(minute=0, second=0)
    readings = [(base + timedelta(minutes=10 * n), n) for n in range(12)]
    put(database_url, owner.devices[0], owner.account_id, "own", readings)
    limit = base + timedelta(minutes=30)
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE account SET readable_from = %s", (limit,))
    raw, buckets, filled, newest = ask(
        "telemetry?from=-30d", "telemetry?from=-30d&bucket=1h&agg=count,min",
        f"telemetry?from=-30d&to={int((base + timedelta(hours=2)).timestamp() * 1000)}"
        "&bucket=10m&fill=null&agg=max", "telemetry?from=-30d&order=desc&limit=100",
    )  # fmt: skip
    assert [item["value"] for item in raw["items"]] == list(range(3, 12))
    assert [(item["count"], item["min"]) for item in buckets["items"]] == [(3, 3), (6, 6)]
    assert [item["value"] for item in filled["items"]] == list(range(3, 12))
    assert newest["items"] == raw["items"][::-1]
    assert {datetime.fromisoformat(answer["from"]) for answer in (raw, buckets, filled)} == {limit}


def test_both_tiers_are_read_while_a_move_is_open(ask, free_tenant, database_url) -> None:
    device, account = free_tenant.devices[0], free_tenant.account_id
    put(database_url, device, account, "free", [(NOW - timedelta(hours=2), 1)])
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "UPDATE account SET tier = 'paid', moving_from = 'free' WHERE id = %s", (account,)
        )
    put(database_url, device, account, "paid", [(NOW - timedelta(hours=1), 2)])
    raw, buckets, latest = ask(
        "telemetry", "telemetry?bucket=1d&agg=count&from=-2d", "latest", tenant=free_tenant
    )
    assert [item["value"] for item in raw["items"]] == [1, 2]
    assert sum(item["count"] for item in buckets["items"]) == 2
    assert [item["value"] for item in latest["items"]] == [2]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"), ("from=2026-01-01T00:00:00", "from"), ("to=x", "to"),
        ("bucket=0s", "bucket"), ("bucket=5", "bucket"), ("bucket=1h&agg=median", "agg"),
        ("agg=avg", "agg"), ("limit=0", "limit"), ("limit=10001", "limit"), ("order=up", "order"),
        ("cursor=%25%25", "cursor"), ("cursor=aGVsbG8", "cursor"), ("from=-1h&to=-2h", "from"),
        ("from=999999999999999", "from"), ("from=-99999999999d", "from"),
        ("from=0001-01-01T00:00:00%2B14:00", "from"), ("bucket=0.0001ms", "bucket"),
        ("fill=null", "fill"), ("fill=zero&bucket=1h", "fill"), ("points=0", "points"),
        ("points=10001", "points"), ("points=5&bucket=1h", "points"), ("limit=9e99", "limit"),
        ("bucket=1y", "bucket"), ("bucket=0d", "bucket"), ("bucket=99999w", "bucket"),
        ("bucket=1mo&tz=Mars/Base", "tz"), ("tz=../../etc/passwd", "tz"), ("tz=Europe", "tz"),
        ("tz=%00", "tz"), ("metrics=%00", "metrics"), ("from=%00", "from"),
        ("bucket=%00", "bucket"), ("cursor=%00", "cursor"),
        ("cursor=WzEsMSwxLG51bGwsMSwxXQ", "cursor"),
        ("agg=&bucket=null", "bucket"), ("since=-1h", "since"), ("format=csv", "format"),
        ("limit=1&limit=2", "limit"), ("from=2026-06-30T12:00:60Z", "from"),
        ("bucket=1h&agg=avg%00", "agg"), ("bucket=9999999999h", "bucket"), ("to=%E0%A4%A", "to"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_named(ask, query, field) -> None:
    answer = ask(f"telemetry?{query}", status=422)
    assert (answer["code"], answer["field"]) == ("invalid", field)


def test_a_metric_that_does_not_exist_has_no_readings(ask) -> None:
    assert ask("telemetry?metrics=nothing")["items"] == []


def test_a_move_that_begins_during_a_read_hides_nothing(
    settings, free_tenant, database_url, monkeypatch
) -> None:
    device, account_id = free_tenant.devices[0], free_tenant.account_id
    put(database_url, device, account_id, "free", [(NOW - timedelta(hours=1), 1)])
    open_source = read.open_source

    async def open_then_flip(*arguments):  # type: ignore[no-untyped-def]
        opened = await open_source(*arguments)
        await asyncio.to_thread(flip)
        return opened

    def flip() -> None:
        with psycopg.connect(database_url) as conn:
            conn.execute(
                "WITH taken AS (DELETE FROM telemetry_free RETURNING *)"
                " INSERT INTO telemetry_paid SELECT * FROM taken"
            )
            conn.execute(
                "UPDATE account SET tier = 'paid', moving_from = 'free' WHERE id = %s",
                (account_id,),
            )

    async def work(name: str) -> list[float]:
        span = Query([device], None, NOW - timedelta(days=1), NOW + timedelta(days=1))
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            account = await accounts.find(conn, str(account_id))
            if name == "raw":
                page = await read.read_page(conn, account, span, NOW, 10)
                return [row[3] for row in page.rows]
            return [item.value for item in await read.latest(conn, account, [device], NOW)]

    monkeypatch.setattr(read, "open_source", open_then_flip)
    assert asyncio.run(work("raw")) == [1]
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE account SET tier = 'free', moving_from = NULL")
        conn.execute(
            "WITH taken AS (DELETE FROM telemetry_paid RETURNING *)"
            " INSERT INTO telemetry_free SELECT * FROM taken"
        )
    assert asyncio.run(work("latest")) == [1]


def test_bucket_pages_hold_every_bucket_once(ask, owner, database_url) -> None:
    readings = [(NOW - timedelta(seconds=20 * n), n) for n in range(30)]
    for metric in ("t", "u"):
        put(database_url, owner.devices[0], owner.account_id, "own", readings, metric=metric)
    whole = ask("telemetry?bucket=1m&agg=avg,count")["items"]
    seen, cursor = [], ""
    while True:
        page = ask(f"telemetry?bucket=1m&agg=avg,count&limit=3{cursor}")
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == whole
    assert sum(item["count"] for item in seen) == 60


def test_latest_of_a_tag_is_that_of_its_devices_alone(api, owner, attacker, database_url) -> None:
    for tenant in (owner, attacker):
        for device in tenant.devices:
            put(database_url, device, tenant.account_id, "own", [(NOW, 1)])
    mine, other = owner.devices
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE device SET tags = '{home}' WHERE id <> %s", (other,))

    async def devices(client: httpx.AsyncClient, path: str, *allowed: str) -> set[str]:
        key = await api.key(owner.account_id, devices=list(allowed) or None)
        answer = await client.get(path, headers={"Authorization": f"Bearer {key}"})
        return {item["device"] for item in answer.json()["items"]}

    async def work(client: httpx.AsyncClient) -> None:
        assert await devices(client, "/api/v1/latest") == {mine, other}
        assert await devices(client, "/api/v1/latest?tag=home") == {mine}
        assert await devices(client, "/api/v1/latest?tag=none") == set()
        assert await devices(client, "/api/v1/latest", other) == {other}

    api.run(work)
