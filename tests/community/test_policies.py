"""On the Community edition each tier's own policy drops what is older than its retention."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from psycopg import sql

from paqett import db, grafana, migrate, retention
from paqett.children import free_port
from paqett.erasure import steps, sweep
from paqett.settings import load

T = TypeVar("T")
HERE = Path(__file__).parent
TOOLS = Path(sys.executable).parent


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is missing: the npm build of TimescaleDB Community cannot be run")
    return found


@pytest.fixture(scope="module")
def community_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated TimescaleDB Community server; one session at a time, no COPY."""
    node, npm = _tool("node"), _tool("npm")
    folder = HERE / "node_modules"
    environ = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    if not folder.exists():
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE, env=environ, check=True, capture_output=True,
        )  # fmt: skip
    port = free_port(56400)
    server = subprocess.Popen(
        [node, "server.js", str(port)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        url = f"postgresql://postgres:any@127.0.0.1:{port}/postgres?sslmode=disable"
        _migrate(url)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # `node` may be a wrapper of the real one
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def _when_free(work: Callable[[], T]) -> T:
    """The server takes one session at a time and needs a moment after each."""
    for _ in range(100):
        try:
            return work()
        except psycopg.OperationalError:
            time.sleep(0.1)
    return work()


def _migrate(url: str) -> None:
    async def run() -> None:
        settings = load({"PAQETT_DATABASE__URL": url})
        conn = await db.connect(settings.database, "test", autocommit=True)
        async with conn:
            await migrate.migrate(conn)
            states = await retention.states(conn)
        assert {state.name for state in states} == {"free", "paid", "own"}
        for state in states:
            assert state.retention_by == "timescaledb"
            assert len(state.jobs) == 2

    _when_free(lambda: asyncio.run(run()))


@pytest.mark.parametrize(("tier", "days"), [("free", 7), ("paid", 90), ("own", 365)])
def test_the_policy_of_each_tier_drops_what_is_older_and_nothing_else(
    community_url: str, tier: str, days: int
) -> None:
    with _when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        for table in (f"telemetry_{tier}", f"telemetry_{tier}_text"):
            for age in (days + 3, days + 2, days - 1, 0):
                conn.execute(
                    f"INSERT INTO {table} VALUES (now() - make_interval(days => %s), 1, 1, %s)",
                    (age, "1"),
                )
            job = conn.execute(
                "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = %s"
                " AND proc_name = 'policy_retention'",
                (table,),
            ).fetchone()
            assert job is not None
            conn.execute(f"CALL run_job({job[0]})")
            left = conn.execute(
                f"SELECT extract(day FROM now() - time)::int FROM {table} ORDER BY time"
            ).fetchall()
            assert left == [(days - 1,), (0,)]


def test_migrating_again_keeps_one_policy_for_each_hypertable(community_url: str) -> None:
    _migrate(community_url)


def test_an_erasure_takes_its_readings_out_of_compressed_chunks_and_no_others(
    community_url: str,
) -> None:
    with _when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        for table, value in (("telemetry_paid", "n"), ("telemetry_paid_text", "'x' || n")):
            conn.execute(f"TRUNCATE {table}")
            conn.execute(
                f"INSERT INTO {table} SELECT now() - n * interval '1 h', 7 + n % 2, 70 + n % 2,"
                f" {value} FROM generate_series(1, 200) AS n"
            )
            conn.execute(
                f"ALTER TABLE {table} SET (timescaledb.compress,"
                " timescaledb.compress_segmentby = 'account_id, series_id')"
            )
            conn.execute(f"SELECT compress_chunk(c) FROM show_chunks('{table}') AS c")
        before = _others(conn)

    async def erase() -> int:
        settings = load({"PAQETT_DATABASE__URL": community_url})
        gone, reach = 0, sweep.Reach()
        async with await db.connect(settings.database, "test", autocommit=True) as conn:
            while True:
                async with conn.transaction():
                    after = await sweep.erase_some(conn, 7, [70], reach)
                if after is None:
                    break
                gone, reach = gone + sum(after.rows.values()), after
            for stretch in await steps.stretches(conn, ["paid"]):
                assert await steps.series_left(conn, 7, stretch) == []
        return gone

    assert _when_free(lambda: asyncio.run(erase())) == 200
    with _when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        assert _others(conn) == before
        for table in ("telemetry_paid", "telemetry_paid_text"):
            found = conn.execute(f"SELECT DISTINCT account_id FROM {table}").fetchall()
            assert found == [(8,)]


def _others(conn: psycopg.Connection) -> list[tuple[str, int]]:
    """A checksum of the other account's readings in each table."""
    found = []
    for table in ("telemetry_paid", "telemetry_paid_text"):
        row = conn.execute(
            f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)), count(*) FROM {table} AS t"
            " WHERE account_id = 8"
        ).fetchone()
        assert row is not None
        found.append((str(row[0]), int(row[1])))
    return found


def test_an_sql_login_sees_its_accounts_readings_and_nothing_else(community_url: str) -> None:
    """Also PostgreSQL's newer rules for CREATEROLE, which the Apache server here may not have."""
    with _when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        conn.execute("TRUNCATE telemetry_own, telemetry_own_text")
        for account in (1, 2):
            conn.execute(
                "INSERT INTO account (email, plan, tier) VALUES (%s, 'own', 'own')", (str(account),)
            )
            conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier)"
                " VALUES ('d' || %s::text, %s, 'thing', '')",
                (account, account),
            )
            conn.execute(
                "INSERT INTO series (account_id, device_id, metric, kind)"
                " VALUES (%s, 'd' || %s::text, 'm', 'number')",
                (account, account),
            )
            conn.execute(
                "INSERT INTO telemetry_own VALUES (now(), %s, %s, %s)",
                (account, account, 40 + account),
            )
        named = conn.execute("SELECT current_database() || '_api'").fetchone()
        assert named is not None
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(named[0])))
        made = [
            conn.execute(
                "SELECT create_sql_login(%s, %s, 20)", (account, grafana.scram_verifier("secret"))
            ).fetchone()
            for account in (1, 2)
        ]
        conn.execute("RESET ROLE")
        assert made[0] is not None
        conn.execute("DELETE FROM account WHERE id = 2")
        left = conn.execute("SELECT role FROM sql_login JOIN pg_roles ON rolname = role").fetchall()
        assert left == [made[0]]
        # the last test: this server keeps what a session is for the next one
        login = sql.Identifier(made[0][0])
        conn.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(login))
        seen = conn.execute("SELECT device, value FROM grafana.telemetry").fetchall()
        assert seen == [("d1", 41.0)]
        assert conn.execute("SELECT device FROM grafana.devices").fetchall() == [("d1",)]
        for refused in (
            "SELECT * FROM public.telemetry_own",
            "SELECT * FROM timescaledb_information.jobs",
            "SELECT public.add_job('pg_sleep', '1 h')",
            "SELECT pg_advisory_lock(7061, 1)",
            "CREATE TEMPORARY TABLE mine (id int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(refused)
