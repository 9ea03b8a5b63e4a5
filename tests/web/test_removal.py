"""Deleting a range of a device's readings: those and no others, whatever happens meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from paqett import app, jobs
from paqett.web import removal
from paqett.worker import process as worker

NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(days=3)


def z(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def put(
    url: str, tenant: Any, metric: str, times: list[datetime], tier: str = "own", which: int = 0
) -> int:
    """Readings of a metric; one called `word` holds texts. Its series."""
    text = metric == "word"
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        row = cursor.execute(
            "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (device_id, metric) DO UPDATE SET metric = EXCLUDED.metric RETURNING id",
            (tenant.account_id, tenant.devices[which], metric, "text" if text else "number"),
        ).fetchone()
        assert row is not None
        cursor.executemany(
            f"INSERT INTO telemetry_{tier}{'_text' if text else ''} VALUES (%s, %s, %s, %s)",
            [(time, tenant.account_id, row[0], "x" if text else 1.0) for time in times],
        )
    return int(row[0])


def left(url: str) -> set[tuple[str, int, datetime]]:
    """Each reading's table, series and time."""
    tables = [
        f"telemetry_{tier}{form}" for tier in ("own", "free", "paid") for form in ("", "_text")
    ]
    with psycopg.connect(url, options="-c timezone=UTC") as conn:
        return {
            (table, *row)
            for table in tables
            for row in conn.execute(f"SELECT series_id, time FROM {table}").fetchall()
        }


class Remover:
    def __init__(self, api: Any, tenant: Any) -> None:
        self.api, self.tenant = api, tenant

    async def send(self, client: httpx.AsyncClient, query: str, *scopes: str) -> httpx.Response:
        key = await self.api.key(self.tenant.account_id, *scopes)
        url = f"/api/v1/devices/{self.tenant.devices[0]}/telemetry?{query}"
        return await client.delete(url, headers={"Authorization": f"Bearer {key}"})

    def remove(self, query: str, *scopes: str) -> httpx.Response:
        answers = []

        async def work(client: httpx.AsyncClient) -> None:
            answers.append(await self.send(client, query, *scopes))

        self.api.run(work)
        return answers[0]


@pytest.fixture
def remover(api, owner) -> Remover:
    return Remover(api, owner)


def test_what_lies_in_the_range_goes_and_nothing_else(remover, owner, database_url) -> None:
    times = [START + timedelta(hours=n) for n in range(60)]
    for metric in ("t", "u", "word"):
        put(database_url, owner, metric, times)
    put(database_url, owner, "t", times, which=1)
    before = left(database_url)
    start, end = times[5], times[50]
    answer = remover.remove(f"from={z(start)}&to={z(end)}", "telemetry:write")
    assert (answer.status_code, answer.content) == (204, b"")
    with psycopg.connect(database_url) as conn:
        rows = conn.execute(
            "SELECT id FROM series WHERE device_id = %s", (owner.devices[0],)
        ).fetchall()
    gone = {row for row in before if (row[1],) in rows and start <= row[2] < end}
    assert len(gone) == 3 * 45
    assert left(database_url) == before - gone


def test_metrics_choose_what_goes(remover, owner, database_url) -> None:
    kept = put(database_url, owner, "t", [START])
    put(database_url, owner, "u", [START])
    put(database_url, owner, "a.b", [START])
    span = f"from={z(START)}&to={z(NOW)}"
    assert remover.remove(f"{span}&metrics=u,a/b,nothing").status_code == 204
    assert left(database_url) == {("telemetry_own", kept, START)}
    assert remover.remove(f"{span}&metrics=nothing").status_code == 204
    assert left(database_url) == {("telemetry_own", kept, START)}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "from"), ("from=-1h", "to"), ("to=now", "from"), ("from=&to=now", "from"),
        ("from=-1h&to=-2h", "from"), ("from=-1h&to=now&metrics=", "metrics"),
        ("from=-1h&to=now&metrics=,", "metrics"), ("from=-1h&to=now&metrics=%00", "metrics"),
        ("from=-1h&to=now&metric=t", "metric"), ("from=x&to=now", "from"),
        ("from=-1h&to=now&metrics=t&metrics=u", "metrics"),
    ],
)  # fmt: skip
def test_nothing_goes_unless_it_is_said_what(remover, owner, database_url, query, field) -> None:
    put(database_url, owner, "t", [NOW - timedelta(minutes=30)])
    answer = remover.remove(query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert len(left(database_url)) == 1


def test_reading_alone_is_no_leave_to_delete(remover, owner, database_url) -> None:
    put(database_url, owner, "t", [START])
    answer = remover.remove("from=0&to=now", "telemetry:read", "devices:write")
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert len(left(database_url)) == 1


@contextmanager
def other_work(url: str) -> Iterator[psycopg.Connection]:
    """A transaction of somebody else's."""
    with psycopg.connect(url) as conn:
        yield conn


def remove_meanwhile(remover: Remover, url: str, conn: psycopg.Connection) -> httpx.Response:
    """Delete everything while `conn` is in the middle of its work; then that commits."""
    answers = []

    async def work(client: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(remover.send(client, "from=0&to=now"))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as looker:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            for _ in range(500):
                if (await (await looker.execute(waiting)).fetchone()) != (0,):
                    break
                assert not asking.done(), "the deletion did not wait"
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("the deletion waits for something else")
        conn.commit()
        answers.append(await asking)

    remover.api.run(work)
    return answers[0]


def test_a_flush_in_flight_is_waited_for(remover, owner, database_url) -> None:
    series = put(database_url, owner, "t", [START])
    with other_work(database_url) as conn:
        conn.execute("SELECT pg_advisory_xact_lock_shared(7061, 1)")
        conn.execute(
            "INSERT INTO telemetry_own VALUES (%s, %s, %s, 1)",
            (START + timedelta(hours=1), owner.account_id, series),
        )
        assert remove_meanwhile(remover, database_url, conn).status_code == 204
    assert left(database_url) == set()


def test_readings_on_their_way_between_tiers_do_not_escape(remover, owner, database_url) -> None:
    times = [START + timedelta(hours=n) for n in range(40)]
    put(database_url, owner, "t", times, tier="free")
    put(database_url, owner, "t", [NOW - timedelta(minutes=1)])
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE account SET moving_from = 'free'")
    with other_work(database_url) as conn:
        conn.execute("SELECT pg_advisory_xact_lock(7062, %s)", (owner.account_id,))
        conn.execute(
            "WITH taken AS (DELETE FROM telemetry_free WHERE time < %s RETURNING *)"
            " INSERT INTO telemetry_own SELECT * FROM taken",
            (times[20],),
        )
        assert remove_meanwhile(remover, database_url, conn).status_code == 204
    assert left(database_url) == set()


def test_a_job_goes_on_where_there_is_too_much_for_a_request(
    remover, owner, database_url, monkeypatch
) -> None:
    times = [START - timedelta(days=n) for n in range(6)]
    put(database_url, owner, "t", times)
    put(database_url, owner, "word", times)
    monkeypatch.setattr(removal, "_PATIENCE_S", 0.0)
    answer = remover.remove(f"from={z(times[4])}&to={z(times[0])}")
    assert answer.status_code == 202
    assert 4 < len(left(database_url)) < 12

    async def work() -> None:
        queue = jobs.app(remover.api.settings.database)
        async with app.services(remover.api.settings, "test") as services, queue.open_async():
            worker.register(queue, services)
            await queue.run_worker_async(wait=False, install_signal_handlers=False)

    asyncio.run(work())
    assert {row[2] for row in left(database_url)} == {times[0], times[5]}
    assert len(left(database_url)) == 4
