"""Reads from a real streaming replica: never older than what was committed before they came."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import psycopg
import pytest

from grafana_support import Server, signed_in
from paqett import app, db, keys, migrate, replica
from paqett.children import give, service_user
from paqett.errors import Unavailable
from paqett.local import postgres
from paqett.principals import SCOPES
from paqett.replica import Readers
from paqett.settings import Settings
from paqett.web.server import create_app
from ports import free_port
from support import Tenant, _roomy, at, create, in_database, make_tenant, own_cluster, with_url


class Standby:
    """A replica of a cluster, to be stopped and started."""

    def __init__(self, primary: str, folder: Path) -> None:
        where = urlsplit(primary)
        self.folder = folder
        port = free_port(57000 + os.getpid() % 900)
        self._cluster = postgres.Cluster(
            folder, port, str(where.password), postgres.find_binaries()
        )
        self.url = self._cluster.url()
        give(folder, service_user("postgres"))
        subprocess.run(
            [
                str(self._cluster.binaries / "pg_basebackup"), "-D", str(folder / "data"), "-R",
                "--checkpoint=fast", "--no-sync", "-h", "127.0.0.1", "-p", str(where.port),
                "-U", "postgres",
            ],
            cwd="/", env={**os.environ, "PGPASSWORD": str(where.password)}, check=True,
            preexec_fn=postgres._as(service_user("postgres")),
        )  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {port}\n")
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._server = postgres.start(self._cluster, self.folder / "server.log")
        postgres.wait_ready(self.url)

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(2)
            self._server.wait(30)
            self._server = None

    def say(self, statement: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as conn:
            row = conn.execute(statement).fetchone()  # type: ignore[call-overload]
            return row and row[0]


class Pair:
    """A primary and its replica, with one account's readings."""

    def __init__(self, primary: str, standby: Standby) -> None:
        self.url, self.standby = at(primary, "paqett"), standby
        self.tenant: Tenant = make_tenant(self.url, "owner")

    def settings(self, replica_url: str = "", wait_s: float = 5.0) -> Settings:
        return with_url(
            self.url,
            PAQETT_DATABASE__REPLICA_URL=replica_url or at(self.standby.url, "paqett"),
            PAQETT_DATABASE__REPLICA_WAIT_S=str(wait_s),
        )


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="paqett-replica-", dir=_roomy()))
    folder.chmod(0o755)
    clusters = own_cluster()
    primary = next(clusters)
    create(primary, "paqett")
    with psycopg.connect(primary, autocommit=True) as conn:
        conn.execute("ALTER DATABASE paqett SET synchronous_commit = on")  # as in earnest
    in_database(at(primary, "paqett"), migrate.migrate)
    standby = Standby(primary, folder)
    try:
        yield Pair(primary, standby)
    finally:
        standby.stop()
        shutil.rmtree(folder)
        for _ in clusters:
            pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "_AWAY_S", 0.1)
    monkeypatch.setattr(replica, "_BEHIND_S", 0.1)


async def source(readers: Readers) -> str:
    """Which of the two a read is given."""
    async with readers.statements() as conn:
        row = await (await conn.execute("SELECT pg_is_in_recovery() AS standby")).fetchone()
    return "replica" if row and row["standby"] else "primary"


async def until_source(readers: Readers, wanted: str) -> None:
    async with asyncio.timeout(30):
        while await source(readers) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_a_reading_that_was_answered_is_read_at_once(pair: Pair) -> None:
    device = pair.tenant.devices[0]
    before = replica._reads.labels("replica")._value.get()

    async def work() -> None:
        settings = pair.settings()
        async with app.services(settings, "test") as services:
            application = create_app(services)
            async with await db.connect(settings.database, "test", autocommit=True) as conn:
                key = await keys.create(
                    conn, pair.tenant.account_id, "k", sorted(SCOPES), None, None
                )
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(application),
                base_url=f"http://test/api/v1/devices/{device}",
                headers={"Authorization": f"Bearer {key.key}"},
            ) as client:
                await until_source(services.readers, "replica")
                for value in range(15):
                    sent = await client.post("/telemetry", json={"t": value})
                    assert sent.json()["accepted"] == 1, sent.text
                    raw, latest = await asyncio.gather(
                        client.get("/telemetry?from=-1h&order=desc&limit=1"), client.get("/latest")
                    )
                    assert raw.json()["items"][0]["value"] == value
                    assert latest.json()["items"][0]["value"] == value
            await application.state.door.close()
            await application.state.hub.close()

    asyncio.run(work())
    assert replica._reads.labels("replica")._value.get() >= before + 15


def test_a_replica_that_is_behind_is_passed_by_until_it_has_caught_up(pair: Pair) -> None:
    async def work() -> None:
        async with Readers(pair.settings(wait_s=0.3).database, "test") as readers:
            await until_source(readers, "replica")
            pair.standby.say("SELECT pg_wal_replay_pause()")
            try:
                with psycopg.connect(pair.url) as conn:
                    conn.execute("INSERT INTO stripe_event VALUES ('evt_1', 'x', now())")
                async with readers.statements() as conn_read:
                    found = await conn_read.execute("SELECT count(*) AS n FROM stripe_event")
                    assert await found.fetchone() == {"n": 1}
                assert replica._lag._value.get() > 0
            finally:
                pair.standby.say("SELECT pg_wal_replay_resume()")
            await until_source(readers, "replica")
            assert replica._lag._value.get() == 0

    asyncio.run(work())


def test_reads_go_on_while_the_replica_is_away_and_return_to_it(pair: Pair) -> None:
    async def work() -> None:
        async with Readers(pair.settings(wait_s=0.5).database, "test") as readers:
            await until_source(readers, "replica")
            pair.standby.stop()
            for _ in range(20):
                assert await source(readers) == "primary"
            pair.standby.start()  # here, since it ends with the thread that began it
            await until_source(readers, "replica")

    asyncio.run(work())


def test_many_readers_ask_the_primary_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, really = [], Readers.position

    async def position(self: Readers) -> replica.Place:
        asked.append(1)
        return await really(self)

    async def work() -> None:
        async with Readers(pair.settings().database, "test") as readers:
            await until_source(readers, "replica")
            monkeypatch.setattr(readers._position, "_ask", lambda: position(readers))
            sources = await asyncio.gather(*(source(readers) for _ in range(40)))
            assert set(sources) == {"replica"}
            assert 1 <= len(asked) <= 2

    asyncio.run(work())


def test_a_server_that_is_no_replica_is_never_taken_for_one(pair: Pair) -> None:
    async def work() -> None:
        settings = pair.settings(replica_url=pair.url, wait_s=0.1)
        async with Readers(settings.database, "test") as readers:
            assert {await source(readers) for _ in range(3)} == {"primary"}

    before = replica._reads.labels("primary")._value.get()
    asyncio.run(work())
    assert replica._reads.labels("primary")._value.get() == before + 3


@pytest.mark.parametrize("part", ["system", "timeline", "database"])
def test_a_replica_of_something_else_is_not_read_however_far_it_is(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    really = Readers.position

    async def position(self: Readers) -> replica.Place:
        place = await really(self)
        return msgspec.structs.replace(place, position=1, **{part: getattr(place, part) + 1})

    async def work() -> None:
        async with Readers(pair.settings().database, "test") as readers:
            await until_source(readers, "replica")
            monkeypatch.setattr(readers._position, "_ask", lambda: position(readers))
            assert {await source(readers) for _ in range(3)} == {"primary"}

    asyncio.run(work())


def test_a_database_that_was_put_in_the_place_of_another_is_not_read_by_old_connections(
    pair: Pair,
) -> None:
    """As a restore does: it keeps the old one under another name."""
    there = pair.url.rpartition("/")[0]

    def say(*statements: str) -> None:
        with psycopg.connect(f"{there}/postgres", autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)  # type: ignore[call-overload]

    def settings() -> Settings:
        return with_url(
            f"{there}/renamed",
            PAQETT_DATABASE__REPLICA_URL=at(pair.standby.url, "renamed"),
            PAQETT_DATABASE__REPLICA_WAIT_S="5",
        )

    async def name(readers: Readers) -> str:
        async with readers.statements() as conn:
            row = await (await conn.execute("SELECT current_database() AS name")).fetchone()
            return str(row and row["name"])

    async def work() -> None:
        async with Readers(settings().database, "test") as readers:
            await until_source(readers, "replica")
            say(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'renamed'",
                "ALTER DATABASE renamed RENAME TO renamed_old",
                "CREATE DATABASE renamed TEMPLATE template0",
            )
            async with asyncio.timeout(30):
                while await available(readers) != "replica":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await name(readers) == "renamed"

    async def available(readers: Readers) -> str:
        """Connections that were ended are noticed at their next use."""
        try:
            found = await source(readers)
            assert await name(readers) == "renamed", "never the old one's rows"
        except Unavailable:
            return "neither"
        return found

    say("CREATE DATABASE renamed TEMPLATE template0")
    asyncio.run(work())


def test_a_read_that_the_replica_broke_off_is_not_sent_there_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_AWAY_S", 60)

    async def too_long(readers: Readers) -> None:
        async with readers.statements() as conn:
            await conn.execute("SET statement_timeout = 10")
            try:
                await conn.execute("SELECT pg_sleep(1)")
            finally:
                await conn.close()  # the next one has its own timeout

    async def broken_off(readers: Readers) -> None:
        async with readers.statements() as conn:
            pair.standby.say(f"SELECT pg_terminate_backend({conn.info.backend_pid})")
            await conn.execute("SELECT 1")

    async def work() -> None:
        async with Readers(pair.settings().database, "test") as readers:
            await until_source(readers, "replica")
            with pytest.raises(psycopg.errors.QueryCanceled):
                await too_long(readers)
            assert await source(readers) == "replica", "it would take as long elsewhere"
            with pytest.raises(Unavailable):
                await broken_off(readers)
            assert {await source(readers) for _ in range(3)} == {"primary"}

    asyncio.run(work())


def test_a_replica_shows_an_accounts_sql_login_nothing(pair: Pair) -> None:
    """There it is neither watched nor ended in time, and what was erased may still stand."""
    login = Server(pair.url, "paqett", pair.settings()).login(pair.tenant)
    there = msgspec.structs.replace(login, port=urlsplit(pair.standby.url).port)
    with signed_in(login) as conn:
        assert len(conn.execute("SELECT * FROM grafana.devices").fetchall()) == 2

    async def replayed() -> None:
        async with Readers(pair.settings().database, "test") as readers:
            await until_source(readers, "replica")

    asyncio.run(replayed())
    with signed_in(there) as conn:
        for view in ("telemetry", "latest", "devices", "series"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="primary alone"):
                conn.execute(f"SELECT * FROM grafana.{view}")  # type: ignore[call-overload]
        everything = conn.execute("SELECT schema_to_xml('public', true, true, '')").fetchone()
        assert everything is not None
        assert pair.tenant.devices[0] not in str(everything[0])


def test_a_promoted_replica_is_one_no_more(pair: Pair) -> None:
    async def work() -> None:
        async with Readers(pair.settings().database, "test") as readers:
            await until_source(readers, "replica")
            assert pair.standby.say("SELECT pg_promote()")
            assert {await source(readers) for _ in range(5)} == {"primary"}
        async with Readers(pair.settings().database, "test") as readers:
            assert await source(readers) == "primary"

    asyncio.run(work())
