"""What a query answers is what Python computes from the raw readings."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from math import ceil, floor
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paqett import app, keys
from paqett.db import Connection
from paqett.readings import aggregate
from paqett.web.server import create_app
from support import Tenant, at, create, drop, in_database, make_tenant, with_url

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
# around the days of 23 and 25 hours in Berlin, of 23½ and 24½ on Lord Howe, and a month's end
PLACES = [
    datetime(2026, 3, 28, 18, tzinfo=UTC),
    datetime(2026, 4, 4, 3, tzinfo=UTC),
    datetime(2026, 10, 24, 20, tzinfo=UTC),
    datetime(2026, 10, 31, 20, tzinfo=UTC),
]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"]
CALENDAR = ["1d", "2d", "1w", "1mo", "3mo"]
FIXED = {"90s": 90, "10m": 600, "1h": 3600, "1.5h": 5400, "6h": 21_600, "7h": 25_200}
NUMERIC = ["avg", "min", "max", "sum", "count", "first", "last", "p50", "p95"]
KINDS = {"t": "number", "on": "boolean", "mode": "text"}
VALUES = {
    "number": st.one_of(
        st.integers(-100, 100).map(float), st.floats(-1e6, 1e6, allow_nan=False, width=32)
    ),
    "boolean": st.booleans(),
    "text": st.sampled_from(["auto", 'a "b", c', "line\nbreak", "ü"]),
}


VALUES_OF = {"t": float, "on": lambda n: n % 3 == 0, "mode": str}


class Reading(msgspec.Struct, frozen=True):
    time: datetime
    series: tuple[str, str]  # device, metric
    value: Any

    @property
    def kind(self) -> str:
        return KINDS[self.series[1]]


class Asking:
    """One database and one application for every example."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tenant: Tenant = make_tenant(url, "owner")
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        configured = with_url(url)
        self._client = self._runner.run(self._open(configured))
        key = in_database(url, self._make_key)
        self._client.headers["Authorization"] = f"Bearer {key}"
        self.series = self._make_series()

    async def _open(self, configured: Any) -> httpx.AsyncClient:
        services = await self._stack.enter_async_context(
            app.services(configured, "test", clock=lambda: NOW)
        )
        transport = httpx.ASGITransport(create_app(services))
        client = httpx.AsyncClient(transport=transport, base_url="http://test/api/v1")
        return await self._stack.enter_async_context(client)

    async def _make_key(self, conn: Connection) -> str:
        account = self.tenant.account_id
        return (await keys.create(conn, account, "test", ["telemetry:read"], None, None)).key

    def _make_series(self) -> dict[tuple[str, str], int]:
        """Their ids fall while their names rise: rows are ordered by the ids."""
        with psycopg.connect(self.url) as conn:
            for device in sorted(self.tenant.devices, reverse=True):
                for metric, kind in KINDS.items():
                    conn.execute(
                        "INSERT INTO series (account_id, device_id, metric, kind)"
                        " VALUES (%s, %s, %s, %s)",
                        (self.tenant.account_id, device, metric, kind),
                    )
            rows = conn.execute("SELECT device_id, metric, id FROM series").fetchall()
        return {(device, metric): key for device, metric, key in rows}

    def put(self, readings: list[Reading], *, moving: bool = False) -> None:
        """These and no others; every second one in another tier while a move is open."""
        with psycopg.connect(self.url) as conn, conn.cursor() as cursor:
            cursor.execute("UPDATE account SET moving_from = %s", ("free" if moving else None,))
            for form, texts in (("", False), ("_text", True)):
                chosen = [r for r in readings if (r.kind == "text") == texts]
                moved = len(chosen) // 2 if moving else 0
                for tier, part in (("free", chosen[:moved]), ("own", chosen[moved:])):
                    cursor.execute(f"DELETE FROM telemetry_{tier}{form}")
                    self.add(part, f"telemetry_{tier}{form}", cursor)

    def add(self, readings: list[Reading], table: str, cursor: Any) -> None:
        cursor.executemany(
            f"INSERT INTO {table} VALUES (%s, %s, %s, %s)",
            [
                (
                    r.time, self.tenant.account_id, self.series[r.series],
                    r.value if r.kind == "text" else float(r.value),
                )
                for r in readings
            ],
        )  # fmt: skip

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **more))

    def query(self, accept: str = "application/json", **members: Any) -> httpx.Response:
        answer = self.request(
            "POST", "/telemetry/query", headers={"Accept": accept},
            json={"devices": self.tenant.devices, **members},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return answer

    def pages(self, limit: int, **members: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.query(limit=limit, cursor=cursor, **members).json()
            items += page["items"]
            assert len(page["items"]) <= limit
            cursor = page["next_cursor"]
            if cursor is None:
                return items
            assert page["items"]

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def asking(server_url: str, template: str) -> Iterator[Asking]:
    name = "paqett_test_queries"
    drop(server_url, name)
    create(server_url, name, template)
    asking = Asking(at(server_url, name))
    yield asking
    asking.close()
    drop(server_url, name)


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Readings around one place, a range near them, and how they are asked for."""
    place = draw(st.sampled_from(PLACES))
    minutes = st.integers(0, 40 * 60)
    steps = draw(st.lists(st.tuples(minutes, st.integers(0, 3)), max_size=40, unique=True))
    readings = []
    for minute, which in steps:
        metric = draw(st.sampled_from(list(KINDS)))
        value = draw(VALUES[KINDS[metric]])
        time = place + timedelta(minutes=minute, microseconds=which * 333_333)
        readings.append((time, draw(st.integers(0, 1)), metric, value))
    start = place + timedelta(minutes=draw(st.integers(-120, 20 * 60)))
    length = timedelta(minutes=draw(st.integers(0, 36 * 60)))
    return {"readings": readings, "from": start, "to": start + length}


def readings_of(asking: Asking, case: dict[str, Any]) -> list[Reading]:
    found = {}
    for time, device, metric, value in case["readings"]:
        series = (asking.tenant.devices[device], metric)
        found[time, series] = Reading(time, series, value)
    return list(found.values())


def within(asking: Asking, case: dict[str, Any]) -> list[Reading]:
    inside = [r for r in readings_of(asking, case) if case["from"] <= r.time < case["to"]]
    return sorted(inside, key=lambda r: (r.time, asking.series[r.series]))


def text_of(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def begin(time: datetime, bucket: str, tz: str) -> datetime:
    """The start of the bucket a time lies in."""
    zone = ZoneInfo(tz)
    if bucket in FIXED:
        origin = datetime(2000, 1, 3, tzinfo=zone).astimezone(UTC)
        passed = (time - origin).total_seconds() // FIXED[bucket]
        return origin + timedelta(seconds=passed * FIXED[bucket])
    day = time.astimezone(zone).date()
    if bucket.endswith("mo"):
        month = (day.month - 1) // int(bucket[:-2]) * int(bucket[:-2]) + 1
        day = day.replace(month=month, day=1)
    else:
        days = int(bucket[:-1]) * (7 if bucket.endswith("w") else 1)
        day -= timedelta(days=(day - date(2000, 1, 3)).days % days)
    return midnight(day, zone)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def following(start: datetime, bucket: str, tz: str) -> datetime:
    """The start of the next bucket: the first minute that lies in another."""
    step = timedelta(seconds=FIXED[bucket]) if bucket in FIXED else timedelta(minutes=30)
    time = start + step
    while begin(time, bucket, tz) == start:
        time += step
    return begin(time, bucket, tz)


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    place = share * (len(values) - 1)
    low, high = values[floor(place)], values[ceil(place)]
    return low + (high - low) * (place - floor(place))


def computed(readings: list[Reading], name: str) -> Any:
    """Of one series in one bucket, by time."""
    values = [r.value for r in readings]
    if name in ("count", "first", "last"):
        return {"count": len(values), "first": values[0], "last": values[-1]}[name]
    if readings[0].kind == "text":
        return None
    plain = [float(value) for value in values]
    figures: dict[str, Any] = {
        "avg": sum(plain) / len(plain), "sum": sum(plain), "min": min(values), "max": max(values),
        "p50": percentile(plain, 0.5), "p95": percentile(plain, 0.95),
    }  # fmt: skip
    return figures[name]


def expected_buckets(
    asking: Asking, case: dict[str, Any], bucket: str, tz: str, names: list[str], fill: str
) -> list[dict[str, Any]]:
    groups: dict[tuple[datetime, tuple[str, str]], list[Reading]] = {}
    for reading in within(asking, case):
        if reading.kind != "text" or set(names) & {"count", "first", "last"}:
            groups.setdefault((begin(reading.time, bucket, tz), reading.series), []).append(reading)
    found = {key: {name: computed(rs, name) for name in names} for key, rs in groups.items()}
    if fill != "none" and found:
        start = begin(case["from"], bucket, tz)
        before: dict[Any, Any] = {}
        while start < case["to"]:
            for series in {series for _, series in groups}:
                empty = before.get(series, dict.fromkeys(names))
                row = found.setdefault((start, series), empty)
                if fill == "previous":
                    before[series] = row
            start = following(start, bucket, tz)
    single = len(names) == 1
    return [
        {"time": text_of(time), "device": series[0], "metric": series[1], **row}
        | ({"value": row[names[0]]} if single else {})
        for (time, series), row in sorted(
            found.items(), key=lambda item: (item[0][0], asking.series[item[0][1]])
        )
    ]


def same(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        assert list(mine) == list(theirs)
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, rel=1e-9, abs=1e-6)
                assert type(mine[name]) is float
            else:
                assert mine[name] == value
                assert type(mine[name]) is type(value)


ORDERS = st.sampled_from(["asc", "desc"])
AGGREGATES = st.lists(st.sampled_from(NUMERIC), min_size=1, unique=True)


def check_raw(
    asking: Asking, case: dict[str, Any], order: str, limit: int, *, moving: bool
) -> None:
    asking.put(readings_of(asking, case), moving=moving)
    wanted = [
        {"time": text_of(r.time), "device": r.series[0], "metric": r.series[1], "value": r.value}
        for r in within(asking, case)
    ]
    members = {"from": text_of(case["from"]), "to": text_of(case["to"]), "order": order}
    same(asking.pages(limit, **members), wanted[::-1] if order == "desc" else wanted)


def check_buckets(
    asking: Asking, case: dict[str, Any], bucket: str, tz: str, names: list[str], fill: str,
    order: str, limit: int, moving: bool,
) -> None:  # fmt: skip
    asking.put(readings_of(asking, case), moving=moving)
    wanted = expected_buckets(asking, case, bucket, tz, names, fill)
    if order == "desc":
        wanted.reverse()
    members = {
        "from": text_of(case["from"]), "to": text_of(case["to"]), "bucket": bucket, "tz": tz,
        "agg": names, "fill": fill, "order": order,
    }  # fmt: skip
    # a short bucket over two days is many rows: pages of a few would be many requests
    same(asking.pages(max(limit, len(wanted) // 7 + 1), **members), wanted)


RAW = {
    "case": cases(), "order": ORDERS, "limit": st.integers(1, 12), "moving": st.booleans(),
}  # fmt: skip
BUCKETS = {
    "case": cases(),
    "bucket": st.sampled_from([*FIXED, *CALENDAR]),
    "tz": st.sampled_from(ZONES),
    "names": AGGREGATES,
    "fill": st.sampled_from(["none", "null", "previous"]),
    "order": ORDERS,
    "limit": st.integers(1, 12),
    "moving": st.booleans(),
}
_quick = settings(
    deadline=None, max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True
)
_long = settings(deadline=None, max_examples=1500, suppress_health_check=list(HealthCheck))


@_quick
@given(**RAW)
def test_raw_pages_are_the_readings_in_order(asking, case, order, limit, moving) -> None:
    check_raw(asking, case, order, limit, moving=moving)


@_quick
@given(**BUCKETS)
def test_bucketed_pages_are_what_python_computes(
    asking, case, bucket, tz, names, fill, order, limit, moving
) -> None:
    check_buckets(asking, case, bucket, tz, names, fill, order, limit, moving)


@pytest.mark.prove
@_long
@given(**RAW)
def test_raw_pages_are_the_readings_in_order_at_length(asking, case, order, limit, moving) -> None:
    check_raw(asking, case, order, limit, moving=moving)


@pytest.mark.prove
@_long
@given(**BUCKETS)
def test_bucketed_pages_are_what_python_computes_at_length(
    asking, case, bucket, tz, names, fill, order, limit, moving
) -> None:
    check_buckets(asking, case, bucket, tz, names, fill, order, limit, moving)


@_quick
@given(
    case=cases(),
    bucket=st.sampled_from([None, "1h", "1d"]),
    names=AGGREGATES,
    fill=st.sampled_from(["none", "null"]),
)
def test_csv_and_ndjson_hold_what_json_holds(asking, case, bucket, names, fill) -> None:
    asking.put(readings_of(asking, case))
    members: dict[str, Any] = {"from": text_of(case["from"]), "to": text_of(case["to"])}
    if bucket is not None:
        members |= {"bucket": bucket, "agg": names, "fill": fill, "tz": "Asia/Kolkata"}
    items = asking.query(limit=10_000, **members).json()["items"]
    lines = asking.query("application/x-ndjson", **members).text.split("\n")
    assert [json.loads(line) for line in lines[:-1]] == items
    assert lines[-1] == ""
    text = asking.query("text/csv", **members).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    shown = [{name: _as_csv(value) for name, value in item.items()} for item in items]
    assert rows == shown


def _as_csv(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


@_quick
@given(
    case=cases(),
    tz=st.sampled_from(ZONES),
    points=st.integers(1, 50),
)
def test_points_picks_a_bucket_of_which_there_are_no_more(asking, case, tz, points) -> None:
    asking.put(readings_of(asking, case))
    members = {"from": text_of(case["from"]), "to": text_of(case["to"]), "tz": tz, "fill": "null"}
    answer = asking.query(points=points, limit=10_000, **members)
    per_series: dict[Any, int] = {}
    for item in answer.json()["items"]:
        key = (item["device"], item["metric"])
        per_series[key] = per_series.get(key, 0) + 1
    longest = answer.headers["paqett-bucket"] == "1200mo"
    assert longest or all(count <= points for count in per_series.values())
    again = asking.query(bucket=answer.headers["paqett-bucket"], limit=10_000, **members)
    assert again.json() == answer.json()


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("fill", ["none", "null", "previous"])
def test_pages_that_end_early_for_their_many_readings_are_whole_together(
    asking, monkeypatch, fill, order
) -> None:
    monkeypatch.setattr(aggregate, "_READINGS", 9)
    place = PLACES[2]
    readings = [
        (place + timedelta(minutes=7 * n * n % 2000), n % 2, metric, VALUES_OF[metric](n))
        for n in range(60)
        for metric in KINDS
    ]
    case = {"readings": readings, "from": place, "to": place + timedelta(hours=30)}
    for bucket, limit in (("10m", 50), ("1h", 1000), ("1d", 1000)):
        check_buckets(
            asking, case, bucket, "Europe/Berlin", ["count", "last"], fill, order, limit, False
        )
    members = {"from": text_of(place), "to": text_of(case["to"]), "bucket": "1h", "agg": "count"}
    first = asking.query(limit=1000, fill=fill, order=order, **members).json()
    assert first["next_cursor"] is not None
    lines = asking.query("text/csv", fill=fill, order=order, **members).text.splitlines()
    whole = asking.pages(1000, fill=fill, order=order, **members)
    assert len(lines) == len(whole) + 1


@pytest.mark.parametrize("bucket", [None, "10m"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_stay_whole_while_readings_arrive(asking, bucket, order) -> None:
    place = PLACES[2]
    series = sorted(asking.series, key=lambda key: asking.series[key])
    numbers = [key for key in series if KINDS[key[1]] == "number"]
    first = [Reading(place + timedelta(minutes=n), key, 1.0) for n in range(60) for key in numbers]
    asking.put(first)
    members: dict[str, Any] = {"from": text_of(place), "to": text_of(place + timedelta(hours=3))}
    members |= {"order": order} | ({"bucket": bucket, "agg": ["count"]} if bucket else {})
    whole = asking.pages(10_000, **members)
    seen, cursor, arrived = [], None, 0
    while True:
        page = asking.query(limit=5, cursor=cursor, **members).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        arrived += 1
        late = [
            Reading(place + timedelta(minutes=m, seconds=arrived), numbers[0], 2.0)
            for m in (0, 59, 100)
        ]
        with psycopg.connect(asking.url) as conn, conn.cursor() as cur:
            asking.add(late, "telemetry_own", cur)
    identity = [(i["time"], i["device"], i["metric"]) for i in seen]
    assert len(identity) == len(set(identity))
    assert {(i["time"], i["device"], i["metric"]) for i in whole} <= set(identity)
    assert [i["time"] for i in seen] == sorted((i["time"] for i in seen), reverse=order == "desc")


def test_days_of_23_and_25_hours_are_whole(asking) -> None:
    series = (asking.tenant.devices[0], "t")
    readings = []
    for day in (date(2026, 3, 29), date(2026, 10, 25)):
        start = midnight(day, ZoneInfo("Europe/Berlin"))
        readings += [Reading(start + timedelta(hours=n), series, 1.0) for n in range(-24, 48)]
    asking.put(readings)

    def counts(day: str, bucket: str) -> dict[str, int]:
        answer = asking.query(
            **{"from": f"{day}T12:00:00Z", "to": "2026-11-01T00:00:00Z"},
            bucket=bucket, agg="count", tz="Europe/Berlin", limit=1000,
        )  # fmt: skip
        return {item["time"]: item["count"] for item in answer.json()["items"]}

    assert counts("2026-03-28", "1d")["2026-03-28T23:00:00Z"] == 23
    assert counts("2026-10-24", "1d")["2026-10-24T22:00:00Z"] == 25
    assert set(counts("2026-10-24", "1h").values()) == {1}


def test_what_was_read_is_not_asked_of_another_query(asking) -> None:
    place = PLACES[0]
    series = (asking.tenant.devices[0], "t")
    asking.put([Reading(place + timedelta(minutes=n), series, 1.0) for n in range(9)])
    members = {"from": text_of(place), "limit": 2}
    cursor = asking.query(**members).json()["next_cursor"]
    assert asking.query(cursor=cursor, **members).json()["items"]
    for other in ({"metrics": ["t"]}, {"order": "desc"}, {"bucket": "1h"}):
        answer = asking.request(
            "POST", "/telemetry/query",
            json={"devices": asking.tenant.devices, "cursor": cursor, **members, **other},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor")
