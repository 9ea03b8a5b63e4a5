"""How often a stranger may try: exact over any number of connections, and stored without names."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from paqett import app, db, migrate, throttle
from paqett.db import Connection
from paqett.errors import TooManyRequests
from paqett.settings import Settings
from paqett.throttle import Rule, network_of
from paqett.worker.upkeep import forget_attempts
from support import in_database, with_url

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
THREE = Rule("three", 3, 60)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def allowed(conn: Connection, rule: Rule, key: str, now: datetime) -> bool:
    try:
        await throttle.hit(conn, rule, key, now)
    except TooManyRequests:
        return False
    return True


def test_a_window_slides_and_what_it_refused_does_not_count(database_url: str) -> None:
    async def work(conn: Connection) -> list[bool]:
        times = (0, 10, 20, 30, 59.9, 60, 61, 69.9, 70, 80, 81)
        return [await allowed(conn, THREE, "a", after(time)) for time in times]

    got = in_database(database_url, work)
    assert got == [True, True, True, False, False, True, False, False, True, True, False]


def test_keys_and_rules_do_not_share_a_window(database_url: str) -> None:
    async def work(conn: Connection) -> None:
        for rule in (THREE, Rule("other", 3, 60)):
            for key in ("a", "b"):
                assert all([await allowed(conn, rule, key, NOON) for _ in range(3)])
                assert not await allowed(conn, rule, key, NOON)
        assert not await allowed(conn, THREE, " A ", NOON), "case and blanks make no other key"

    in_database(database_url, work)


def test_the_refusal_says_which_limit_and_how_long(database_url: str) -> None:
    async def work(conn: Connection) -> None:
        for second in range(3):
            await throttle.hit(conn, THREE, "a", after(second))
        with pytest.raises(TooManyRequests) as caught:
            await throttle.hit(conn, THREE, "a", after(20.5))
        refused = caught.value
        assert (refused.status, refused.code) == (429, "too_many_requests")
        assert refused.headers == {
            "Retry-After": "40",
            "RateLimit-Policy": '"three";q=3;w=60',
            "RateLimit": '"three";r=0;t=40',
        }
        assert await allowed(conn, THREE, "a", after(60.5))

    in_database(database_url, work)


def test_a_success_takes_attempts_back(database_url: str) -> None:
    async def work(conn: Connection) -> None:
        times = [after(second) for second in range(3)]
        for time in times:
            await throttle.hit(conn, THREE, "a", time)
        await throttle.forgive(conn, THREE, "a", times[1])
        await throttle.forgive(conn, THREE, "a", after(50))  # never counted
        assert [await allowed(conn, THREE, "a", after(3)) for _ in range(2)] == [True, False]
        # two attempts in one microsecond are two
        await throttle.forgive(conn, THREE, "a")
        for _ in range(3):
            await throttle.hit(conn, THREE, "a", NOON)
        await throttle.forgive(conn, THREE, "a", NOON)
        assert [await allowed(conn, THREE, "a", NOON) for _ in range(2)] == [True, False]
        await throttle.forgive(conn, THREE, "a")
        assert [await allowed(conn, THREE, "a", NOON) for _ in range(4)] == [True] * 3 + [False]

    in_database(database_url, work)


@pytest.mark.parametrize("known", [False, True])
def test_many_connections_at_once_never_pass_the_limit(settings: Settings, known: bool) -> None:
    rule = Rule("crowd", 10, 60)

    async def process(number: int, start: asyncio.Event) -> int:
        """As an API process does: one transaction for each attempt."""
        conn = await db.connect(settings.database, f"test {number}")
        async with conn:
            await start.wait()
            passed = 0
            for attempt in range(8):
                now = after(number / 10 + attempt / 1000)  # clocks that differ a little
                try:
                    async with conn.transaction():
                        await throttle.hit(conn, rule, "a", now)
                    passed += 1
                except TooManyRequests:
                    pass
            return passed

    async def work() -> list[int]:
        if known:
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                await throttle.hit(conn, rule, "a", after(-61))
        start = asyncio.Event()
        tasks = [asyncio.create_task(process(number, start)) for number in range(6)]
        await asyncio.sleep(0.3)
        start.set()
        return await asyncio.gather(*tasks)

    assert sum(asyncio.run(work())) == 10


def test_no_address_is_stored_in_clear_and_the_worker_forgets(database_url: str) -> None:
    key = "somebody@example.org 192.0.2.1"

    async def work(conn: Connection) -> None:
        await throttle.hit(conn, THREE, key, NOON)
        await throttle.hit(conn, THREE, "later", after(30))

    async def upkeep(now: datetime) -> None:
        async with app.services(with_url(database_url), "test", lambda: now) as services:
            await forget_attempts(services)

    def rows() -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url) as conn:
            return conn.execute("SELECT * FROM throttle").fetchall()

    in_database(database_url, work)
    stored = repr(rows())
    assert "somebody" not in stored
    assert "192.0.2" not in stored
    for second, left in ((59.9, 2), (60, 1), (90, 0)):
        asyncio.run(upkeep(after(second)))
        assert len(rows()) == left


RIGHTS = {
    ("throttle", "api"): "SIUD",
    ("throttle", "worker"): "SD",
    ("request_window", "api"): "SIU",
    ("request_window", "worker"): "SD",
    ("api_usage_day", "api"): "SIU",
    ("api_usage_day", "worker"): "SD",
}


def test_only_the_api_counts_and_what_may_be_lost_is_unlogged(bare_database_url: str) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url) as conn:
        for table, kind in (("throttle", "u"), ("request_window", "u"), ("api_usage_day", "p")):
            found = conn.execute("SELECT relpersistence FROM pg_class WHERE relname = %s", (table,))
            assert found.fetchone() == (kind,)
            for role in ("api", "worker", "ingest"):
                for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                    may = conn.execute(
                        "SELECT has_table_privilege(%s, %s, %s)", (f"{name}_{role}", table, right)
                    ).fetchone()
                    assert may == (right[0] in RIGHTS.get((table, role), ""),), (table, role, right)


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_address_counts_by_its_64(ip: str, network: str) -> None:
    assert network_of(ip) == network
