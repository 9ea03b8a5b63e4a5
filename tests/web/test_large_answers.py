"""Large answers, slow queries and clients that go away, over a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from paqett.web import queries

ROWS = 400_000
LIVING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'paqett test' AND state = 'active'"
)


def fill(url: str, tenant: Any, rows: int, series: int = 1) -> None:
    """`rows` readings a millisecond apart, of each series, the last of them a minute ago."""
    with psycopg.connect(url) as conn:
        made = conn.execute(
            "INSERT INTO series (account_id, device_id, metric, kind)"
            " SELECT %s, %s, 'm' || n, 'number' FROM generate_series(1, %s) AS n RETURNING id",
            (tenant.account_id, tenant.devices[0], series),
        ).fetchall()
        conn.execute(
            "INSERT INTO telemetry_own SELECT now() - interval '1 minute' - n * interval '1 ms',"
            " %s, s, n FROM unnest(%s::int[]) AS s, generate_series(1, %s) AS n",
            (tenant.account_id, [key for (key,) in made], rows),
        )


async def until(ready: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 20
    while not await ready():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


class Lock:
    """Holds the tier's table, so that whatever reads it waits; and looks at who does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._holder: Any = None
        self._looker: Any = None

    async def __aenter__(self) -> "Lock":
        self._holder = await psycopg.AsyncConnection.connect(self._url)
        self._looker = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return self

    async def take(self) -> None:
        await self._holder.execute("LOCK TABLE telemetry_own IN ACCESS EXCLUSIVE MODE")

    async def __aexit__(self, *_: object) -> None:
        await self._holder.close()
        await self._looker.close()

    async def waiting(self) -> bool:
        row = await (
            await self._looker.execute(LIVING + " AND wait_event_type = 'Lock'")
        ).fetchone()
        return row[0] > 0

    async def nobody(self) -> bool:
        row = await (await self._looker.execute(LIVING)).fetchone()
        return row[0] == 0


@pytest.fixture
def telemetry(owner) -> str:
    return f"/api/v1/devices/{owner.devices[0]}/telemetry"


async def headers(api, owner, accept: str = "application/x-ndjson") -> dict[str, str]:
    return {"Authorization": f"Bearer {await api.key(owner.account_id)}", "Accept": accept}


@pytest.mark.parametrize("query", ["", "?bucket=1h", "?bucket=1h&agg=p95&fill=previous"])
def test_a_client_that_goes_away_cancels_its_query(
    api, owner, database_url, telemetry, query
) -> None:
    fill(database_url, owner, 10)

    async def work() -> None:
        async with api.serve() as client, Lock(database_url) as lock:
            await lock.take()
            sent = await headers(api, owner, "application/json")
            asking = asyncio.create_task(client.get(telemetry + query, headers=sent))
            await until(lock.waiting, "the query waits")
            asking.cancel()
            await until(lock.nobody, "the query is cancelled")

    asyncio.run(work())


def test_latest_is_cancelled_too(api, owner, database_url) -> None:
    fill(database_url, owner, 10)

    async def work() -> None:
        async with api.serve() as client, Lock(database_url) as lock:
            await lock.take()
            sent = await headers(api, owner)
            asking = asyncio.create_task(client.get("/api/v1/latest", headers=sent))
            await until(lock.waiting, "the query waits")
            asking.cancel()
            await until(lock.nobody, "the query is cancelled")

    asyncio.run(work())


def locked_after_the_first_page(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    """Pages of five readings; the table is locked before the second is read."""
    read_page, pages = queries.read.read_page, []

    async def slowly(*arguments: Any) -> Any:
        pages.append(arguments)
        if len(pages) == 2:
            await lock.take()
        return await read_page(*arguments)

    monkeypatch.setattr(queries, "_STREAMED_ROWS", 5)
    monkeypatch.setattr(queries.read, "read_page", slowly)


def test_a_client_that_leaves_a_stream_cancels_its_query(
    api, owner, database_url, telemetry, monkeypatch
) -> None:
    fill(database_url, owner, 100)

    async def work() -> None:
        async with api.serve() as client, Lock(database_url) as lock:
            locked_after_the_first_page(monkeypatch, lock)
            sent = await headers(api, owner)
            async with client.stream("GET", telemetry, headers=sent) as answer:
                assert answer.status_code == 200
                chunks = answer.aiter_raw()
                assert b"m1" in await anext(chunks)
                await until(lock.waiting, "the second page waits")
            await until(lock.nobody, "the query is cancelled")

    asyncio.run(work())


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_a_stream_that_breaks_ends_without_its_closing_chunk(
    make_api, owner, database_url, telemetry, monkeypatch, accept
) -> None:
    fill(database_url, owner, 100)
    api = make_api(PAQETT_DATABASE__STATEMENT_TIMEOUT_S="0.3")

    async def work() -> None:
        async with api.serve() as client, Lock(database_url) as lock:
            locked_after_the_first_page(monkeypatch, lock)
            sent = await headers(api, owner, accept)
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                await client.get(telemetry, headers=sent)

    asyncio.run(work())


def test_a_query_that_takes_too_long_is_503_with_advice(
    make_api, owner, database_url, telemetry
) -> None:
    fill(database_url, owner, 10)
    api = make_api(PAQETT_DATABASE__STATEMENT_TIMEOUT_S="0.3")

    async def work() -> None:
        async with api.open() as client, Lock(database_url) as lock:
            await lock.take()
            for accept in ("application/json", "text/csv"):
                sent = await headers(api, owner, accept)
                answer = await client.get(telemetry, headers=sent)
                assert (answer.status_code, answer.json()["code"]) == (503, "query_timeout")
                assert int(answer.headers["retry-after"]) > 0
                assert "shorter range" in answer.json()["detail"]

    asyncio.run(work())


def test_who_reads_slowly_holds_no_connection(make_api, owner, database_url, telemetry) -> None:
    fill(database_url, owner, ROWS)
    api = make_api(PAQETT_DATABASE__POOL_SIZE="1")

    async def work() -> None:
        async with api.serve() as client, Lock(database_url) as lock:
            sent = await headers(api, owner)
            async with client.stream("GET", telemetry, headers=sent) as answer:
                assert answer.status_code == 200
                await until(lock.nobody, "the server has stopped reading ahead")
                other = await client.get(f"{telemetry}?limit=1", headers=sent)
                assert other.status_code == 200

    asyncio.run(work())


def stream_flat(api, owner, database_url, telemetry, rows: int, accept: str) -> None:
    fill(database_url, owner, rows // 4, series=4)
    process = psutil.Process()

    async def work() -> tuple[int, list[int]]:
        lines, seen = 0, []
        async with api.serve() as client:
            sent = await headers(api, owner, accept)
            async with client.stream("GET", telemetry, headers=sent) as answer:
                async for chunk in answer.aiter_raw():
                    lines += chunk.count(b"\n")
                    if lines > rows / 4:
                        seen.append(process.memory_info().rss)
        return lines, seen

    lines, seen = asyncio.run(work())
    assert lines == rows + (accept == "text/csv")
    assert max(seen) - seen[0] < 24 * 2**20


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_a_stream_takes_no_more_memory_the_longer_it_is(
    api, owner, database_url, telemetry, accept
) -> None:
    stream_flat(api, owner, database_url, telemetry, ROWS, accept)


@pytest.mark.prove
@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_ten_million_rows_take_no_more_memory(api, owner, database_url, telemetry, accept) -> None:
    stream_flat(api, owner, database_url, telemetry, 10_000_000, accept)
