"""While a database is migrated its programs run: older ones go on, newer ones wait."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from paqett import app, db, keys, migrate
from paqett.db import Connection
from paqett.errors import MigrationStopped, SchemaBehindError, SchemaOutdatedError, Unavailable
from paqett.flush.writer import Writer
from paqett.ingest.process import _Lead
from paqett.migrate import Patience
from paqett.plans import load_plans
from paqett.principals import SCOPES
from paqett.readings.directory import Directory
from paqett.settings import Settings
from paqett.web.server import create_app
from stacks import until
from support import Tenant, in_database, with_url

QUICK = Patience(lock_s=0.05, statement_s=60, total_s=0.3)
NEWEST = list(migrate.migrations())[-1]


@pytest.fixture
def roles_url(bare_database_url: str) -> str:
    """A migrated database whose roles are its own, so that it can be migrated again."""
    in_database(bare_database_url, migrate.migrate)
    return bare_database_url


@pytest.fixture
def later(monkeypatch):  # type: ignore[no-untyped-def]
    """Ship one more migration."""
    shipped = migrate.migrations()

    def ship(text: str) -> None:
        monkeypatch.setattr(migrate, "migrations", lambda: shipped | {"9999_later": text})

    return ship


def migrated(url: str, patience: Patience = QUICK) -> Any:
    async def work(conn: Connection) -> list[str]:
        return await migrate.migrate(conn, patience)

    return in_database(url, work)


def test_a_migration_gives_way_to_who_holds_a_table_and_says_who_it_was(roles_url, later) -> None:
    later("ALTER TABLE notice ADD COLUMN later int")
    with psycopg.connect(roles_url, application_name="somebody's report") as holder:
        holder.execute("SELECT FROM notice")
        with pytest.raises(MigrationStopped, match=r"9999_later.*somebody's report for"):
            migrated(roles_url)
    assert migrated(roles_url) == ["9999_later"]


def test_nobody_waits_longer_behind_a_migration_than_it_waits_for_its_lock(
    roles_url, later
) -> None:
    later("ALTER TABLE notice ADD COLUMN later int")
    patience = Patience(lock_s=0.2, total_s=60)
    waits = "SELECT count(*) FROM pg_locks WHERE relation = 'notice'::regclass AND NOT granted"
    with psycopg.connect(roles_url) as holder:
        holder.execute("SELECT FROM notice")
        migrating = threading.Thread(target=migrated, args=(roles_url, patience))
        migrating.start()
        with psycopg.connect(roles_url, autocommit=True) as other:
            until(lambda: other.execute(waits).fetchone() != (0,), "the migration waits")
            began = time.monotonic()
            other.execute("SELECT FROM notice")  # behind it, while the holder still holds
            assert time.monotonic() - began < 10
    migrating.join(60)
    assert not migrating.is_alive()
    assert migrated(roles_url) == []


def test_a_statement_that_takes_too_long_is_undone_and_named(roles_url, later) -> None:
    later("CREATE TABLE half (); SELECT pg_sleep(20)")
    slow = Patience(statement_s=2)
    with pytest.raises(MigrationStopped, match=r"9999_later.*migrate_statement_timeout_s"):
        migrated(roles_url, slow)
    later("CREATE TABLE half ()")
    assert migrated(roles_url) == ["9999_later"]


def test_a_connection_has_its_own_timeouts_again_afterwards(roles_url) -> None:
    async def work(conn: Connection) -> list[str]:
        await migrate.migrate(conn)
        rows = await (
            await conn.execute(
                "SELECT setting FROM pg_settings"
                " WHERE name IN ('lock_timeout', 'statement_timeout')"
            )
        ).fetchall()
        return [row["setting"] for row in rows]

    assert in_database(roles_url, work) == ["0", "0"]


def test_two_that_migrate_at_once_do_so_one_after_the_other(bare_database_url) -> None:
    done: list[list[str]] = []
    both = [
        threading.Thread(target=lambda: done.append(migrated(bare_database_url, Patience())))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert sorted(map(len, done)) == [0, len(migrate.migrations()) + 1]


def test_one_that_waits_for_another_migration_too_long_says_so(roles_url) -> None:
    with psycopg.connect(roles_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate._LOCK,))
        with pytest.raises(MigrationStopped, match="another `paqett migrate` is at work"):
            migrated(roles_url)


def test_a_newer_schema_is_worked_with_unless_it_needs_a_newer_program(roles_url, later) -> None:
    later(f"-- What was replaced in {NEWEST} goes.\n-- needs: {NEWEST}\nSELECT 1")
    assert migrated(roles_url) == ["9999_later"]
    known = migrate.migrations()
    with pytest.MonkeyPatch.context() as older:
        older.setattr(migrate, "migrations", lambda: dict(list(known.items())[:-1]))
        assert in_database(roles_url, migrate.require_current) == ["9999_later"]
        older.setattr(migrate, "migrations", lambda: dict(list(known.items())[:-2]))
        with pytest.raises(SchemaOutdatedError, match=r"9999_later.*too old for: upgrade it"):
            in_database(roles_url, migrate.require_current)


TAKES_AWAY = migrate.re.compile(
    r"\bDROP (TABLE|COLUMN|FUNCTION|TYPE)\b|\bRENAME\b|\bSET NOT NULL\b|\bALTER COLUMN \w+ TYPE\b",
    2,
)


def test_a_migration_that_takes_something_away_says_which_programs_it_needs() -> None:
    assert TAKES_AWAY.search("ALTER TABLE notice DROP COLUMN data")
    for name, text in migrate.migrations().items():
        if name >= "0070" and TAKES_AWAY.search(text):
            assert migrate.needs(text) in migrate.migrations(), name


def test_a_newer_job_queue_brings_its_own_migrations(roles_url, monkeypatch, tmp_path) -> None:
    steps = tmp_path / "sql" / "migrations"
    steps.mkdir(parents=True)
    (steps / "03.04.00_01_pre_old.sql").write_text("SELECT 1/0")
    (steps / "99.01.00_01_pre_first.sql").write_text("CREATE TABLE of_the_queue (n int)")
    (steps / "99.01.00_50_post_then.sql").write_text("INSERT INTO of_the_queue VALUES (1)")
    monkeypatch.setattr(migrate.resources, "files", lambda _: tmp_path)
    names = [f"procrastinate 99.01.00_{rest}" for rest in ("01_pre_first", "50_post_then")]
    assert migrated(roles_url) == names
    assert migrated(roles_url) == []


def _grow(url: str) -> None:
    """What a newer version's migrations do at most, unless they say otherwise."""
    with psycopg.connect(url) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace AND relname !~ '^telemetry_'"
        ).fetchall()
        for (table,) in tables:
            conn.execute(f"ALTER TABLE {table} ADD COLUMN of_later text NOT NULL DEFAULT 'x'")
        conn.execute("INSERT INTO schema_migration VALUES ('9999_later', 'x')")


def test_a_running_api_goes_on_beside_a_newer_schema(database_url: str, owner: Tenant) -> None:
    device, settings = owner.devices[0], with_url(database_url, PAQETT_OPS__OPEN_ON_API="true")
    paths = (
        f"/devices/{device}", "/devices", f"/devices/{device}/metrics", f"/devices/{device}/latest",
        f"/devices/{device}/telemetry?from=-1h", f"/devices/{device}/events", "/alert-rules",
        "/alerts", "/channels", "/usage", "/plan", "/usage/rejections",
    )  # fmt: skip

    async def work() -> None:
        async with app.services(settings, "test") as services:
            application = create_app(services)
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                key = await keys.create(conn, owner.account_id, "k", sorted(SCOPES), None, None)
            headers = {"Authorization": f"Bearer {key.key}"}
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(application),
                base_url="http://test/api/v1",
                headers=headers,
            ) as client:

                async def everything(value: int) -> None:
                    sent = await client.post(f"/devices/{device}/telemetry", json={"t": value})
                    assert (sent.status_code, sent.json()["accepted"]) == (200, 1), sent.text
                    answers = await asyncio.gather(*(client.get(path) for path in paths))
                    assert {one.status_code for one in answers} == {200}
                    raw = answers[4].json()["items"]
                    assert [one["value"] for one in raw] == list(range(value + 1))

                for value in range(7):  # often enough for statements to be prepared
                    await everything(value)
                await asyncio.to_thread(_grow, database_url)
                for value in range(7, 10):
                    await everything(value)
                ready = await client.get("http://test/readyz")
                assert (ready.status_code, ready.json()["schema_newer"]) == (200, ["9999_later"])
            await application.state.door.close()
            await application.state.hub.close()

    asyncio.run(work())


def _forget(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("DELETE FROM schema_migration WHERE name = %s", (NEWEST,))


def _remember(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("INSERT INTO schema_migration VALUES (%s, 'x')", (NEWEST,))


def test_a_newer_process_waits_for_the_schema_and_says_what_to_run(settings: Settings) -> None:
    url = settings.database.url
    _forget(url)

    async def work() -> list[Any]:
        stop = asyncio.Event()
        with capture_logs() as said:
            waiting = asyncio.create_task(app.wait_for_database(settings, stop))
            async with asyncio.timeout(20):
                while not said:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                await asyncio.to_thread(_remember, url)
                await waiting
        return said

    (line,) = asyncio.run(work())
    assert "0070_beside" in line["reason"]
    assert "paqett migrate" in line["reason"]


class _NoPipeline:
    def replay(self) -> None:
        """Nothing is in the spool."""


@pytest.mark.parametrize("older_is_active", [True, False])
def test_a_newer_ingest_waits_for_the_schema_and_spools_only_where_it_was_the_active_one(
    settings: Settings, tmp_path: Path, monkeypatch, older_is_active: bool
) -> None:
    monkeypatch.setattr("paqett.ingest.process._WITHOUT_DATABASE_AFTER_S", 0.2)
    url, marker = settings.database.url, tmp_path / "active"
    marker.touch()
    _forget(url)

    async def work() -> None:
        stop = asyncio.Event()
        lead = _Lead(settings, marker, _NoPipeline())  # type: ignore[arg-type]
        waiting = asyncio.create_task(lead.wait(stop))
        async with asyncio.timeout(20):
            if older_is_active:
                while marker.exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                stop.set()
                assert await waiting is False
            else:
                assert await waiting is True
                assert lead._conn is None, "everything goes to the spool"
                await asyncio.to_thread(_remember, url)
                assert await lead._try() is True
        await lead.close()

    with psycopg.connect(url, autocommit=True) as other:
        if older_is_active:
            other.execute("SELECT pg_advisory_lock(7061, 2)")
        asyncio.run(work())


def test_nothing_is_written_into_an_older_schema(settings: Settings) -> None:
    _forget(settings.database.url)

    async def work() -> None:
        directory = Directory(load_plans(settings.plans_file))
        writer = Writer(settings.database, "ingest", directory, 10)
        with pytest.raises(SchemaBehindError, match=NEWEST):
            await writer.flush([])
        await writer.close()

    asyncio.run(work())


def test_what_a_migration_changes_under_a_prepared_statement_costs_one_request(
    settings: Settings,
) -> None:
    def grow() -> None:
        with psycopg.connect(settings.database.url) as conn:
            conn.execute("ALTER TABLE stripe_event ADD COLUMN of_later int")

    whole = "SELECT * FROM stripe_event WHERE id = %s"

    async def work() -> None:
        one = with_url(settings.database.url, PAQETT_DATABASE__POOL_SIZE="1").database
        async with db.pool(one, "test") as pool:
            for _ in range(7):
                async with db.transaction(pool) as conn:
                    await conn.execute(whole, ("evt_1",))
            await asyncio.to_thread(grow)
            with pytest.raises(Unavailable):
                async with db.transaction(pool) as conn:
                    await conn.execute(whole, ("evt_1",))
            async with db.transaction(pool) as conn:
                await conn.execute(whole, ("evt_1",))

    asyncio.run(work())
