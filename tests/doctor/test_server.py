"""What the doctor says of the PostgreSQL server: each complaint, and the same when it is well."""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from paqett import db, doctor, migrate
from paqett.app import utc_now
from paqett.db import Connection
from paqett.doctor import server
from paqett.doctor.database import _policies_finding
from paqett.retention import TierState
from support import in_database, with_url

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHIPPED = 128 * server.MIB // 8192


def found(url: str, subject: str, ahead: timedelta = timedelta()) -> doctor.Finding:
    async def examine(conn: Connection) -> list[doctor.Finding]:
        return await doctor.examine_server(conn, utc_now() + ahead)

    (finding,) = [one for one in in_database(url, examine) if one.subject == subject]
    return finding


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (timedelta(), "ok"),
        (timedelta(seconds=-10), "warning"),
        (timedelta(seconds=10), "warning"),
        (timedelta(minutes=2), "failed"),
    ],
)
def test_clocks_that_differ(database_url: str, ahead: timedelta, state: str) -> None:
    clock = found(database_url, "clock", ahead)
    assert (clock.state, "NTP" in clock.mend) == (state, state != "ok")


@pytest.fixture
def own_roles_url(bare_database_url: str) -> str:
    """A database whose roles are its own, unlike a clone's."""
    in_database(bare_database_url, migrate.migrate)
    return bare_database_url


def test_roles_that_are_lacking_too_mighty_too_weak_or_a_superusers(
    own_roles_url: str, database_url: str
) -> None:
    assert found(database_url, "roles").state == "warning", "a clone's roles are the template's"
    name = own_roles_url.rpartition("/")[2]
    assert found(own_roles_url, "roles").detail == "3, none with more than it needs"
    with closing(psycopg.connect(own_roles_url, autocommit=True)) as conn:
        for wrong, mended, says in (
            (f'ALTER ROLE "{name}_api" CREATEDB', f'ALTER ROLE "{name}_api" NOCREATEDB', "more"),
            (f'ALTER ROLE "{name}_worker" NOLOGIN', f'ALTER ROLE "{name}_worker" LOGIN', "lack"),
            (
                f'REVOKE INSERT ON usage_hour FROM "{name}_ingest"',
                f'GRANT INSERT ON usage_hour TO "{name}_ingest"',
                f"{name}_ingest lack",
            ),
        ):
            conn.execute(wrong)
            roles = found(own_roles_url, "roles")
            assert (roles.state, says in roles.detail, bool(roles.mend)) == ("failed", True, True)
            conn.execute(mended)
            assert found(own_roles_url, "roles").state == "ok", mended
        conn.execute("SET application_name = 'paqett api ingest'")
        roles = found(own_roles_url, "roles")
        assert (roles.state, roles.detail) == ("warning", "superusers run api")


def test_a_server_that_may_forget_a_commit(database_url: str) -> None:
    with closing(psycopg.connect(database_url)) as conn:
        said = {
            name: conn.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]
            for name in ("fsync", "full_page_writes", "synchronous_commit")
        }
    careless = [name for name, value in said.items() if value == "off"]
    durability = found(database_url, "durability")
    assert durability.state == ("failed" if careless else "ok")
    assert all(name in durability.detail for name in careless)
    careful = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    assert server.durability_finding(careful).state == "ok"
    forgetful = server.durability_finding(careful | {"synchronous_commit": "off"})
    assert (forgetful.state, forgetful.mend) == ("failed", "set synchronous_commit = on")


@pytest.mark.parametrize(
    ("buffers", "memory", "state"),
    [
        (SHIPPED, 16 * server.GIB, "warning"),
        (SHIPPED, None, "warning"),
        (SHIPPED, server.GIB, "ok"),
        (2 * SHIPPED, None, "ok"),
        (4 * server.GIB // 8192, 16 * server.GIB, "ok"),
        (9 * server.GIB // 8192, 16 * server.GIB, "warning"),
    ],
)
def test_memory_as_it_is_shipped_or_too_much_of_it(
    buffers: int, memory: int | None, state: str
) -> None:
    said = server.memory_finding({"shared_buffers": str(buffers), "block_size": "8192"}, memory)
    assert (said.state, said.mend.startswith("set shared_buffers")) == (state, state != "ok")


def test_what_the_servers_own_settings_say_is_read(database_url: str) -> None:
    assert found(database_url, "shared_buffers").detail.startswith("256 MiB")
    assert found(database_url, "locks").detail == "max_locks_per_transaction is 512"
    few = server.locks_finding({"max_locks_per_transaction": "64"})
    assert (few.state, "512" in few.mend) == ("warning", True)


def test_a_table_that_somebody_holds_is_not_waited_for_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LOCK_S", 0.2)

    async def work() -> None:
        settings = with_url(database_url)
        async with asyncio.timeout(20), await db.connect(settings.database, "doctor") as conn:
            await doctor.examine_server(conn, utc_now())
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await doctor.examine(conn, utc_now())
            await conn.rollback()

    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE tier, telemetry_own")
        asyncio.run(work())


@pytest.mark.parametrize(
    ("job", "state", "says"),
    [
        ({}, "ok", ""),
        ({"last_run_status": "Failed", "total_failures": 7}, "failed", "failed, 7 times"),
        ({"last_successful_finish": NOW - timedelta(hours=7)}, "failed", "has not run since"),
        ({"last_successful_finish": None}, "ok", ""),
        ({"scheduled": False, "last_run_status": "Failed"}, "ok", ""),
    ],
)
def test_policies_that_fail_or_do_not_run(job: dict[str, object], state: str, says: str) -> None:
    well = {
        "hypertable": "telemetry_own", "job_id": 1000, "scheduled": True,
        "last_run_status": "Success", "total_failures": 0,
        "last_successful_finish": NOW - timedelta(minutes=50),
    }  # fmt: skip
    tier = TierState("own", timedelta(days=365), "timescaledb", None, [well, well | job])
    finding = _policies_finding(tier, "365 days", NOW)
    assert (finding.state, says in finding.detail, bool(finding.mend)) == (
        state, True, state != "ok",
    )  # fmt: skip
