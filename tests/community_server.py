"""A TimescaleDB Community server for the tests of what that edition alone has.

The server of PAQETT_TEST_DATABASE_URL where it is one, else the npm build in WebAssembly: no COPY,
no scheduler, one session at a time.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from paqett import db, migrate, retention
from paqett.db import Connection
from ports import free_port
from support import at, create, drop, with_url

T = TypeVar("T")
HERE = Path(__file__).parent / "community"
NODE = Path(sys.executable).with_name("node")


def community(server: str | None) -> Iterator[str]:
    """A migrated database of its own; `server` is a superuser's address or None."""
    if server and _is_community(server):
        name = f"paqett_community_{uuid.uuid4().hex[:8]}"
        create(server, name)
        migrated(at(server, name))
        yield at(server, name)
        drop(server, name)
    else:
        yield from npm_build()


def _is_community(server: str) -> bool:
    with psycopg.connect(server) as conn:
        row = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return row is not None and row[0] == "timescale"


def npm_build() -> Iterator[str]:
    """The package that `make test` fetches, on the node of the virtual environment."""
    port = free_port(56400)
    server = subprocess.Popen(
        [NODE, "server.js", str(port)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        url = f"postgresql://postgres:any@127.0.0.1:{port}/postgres?sslmode=disable"
        migrated(url)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # `node` may be a wrapper of the real one
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def when_free(work: Callable[[], T]) -> T:
    """The npm build takes one session at a time and needs a moment after each."""
    for _ in range(100):
        try:
            return work()
        except psycopg.OperationalError:
            time.sleep(0.1)
    return work()


def run(url: str, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """`work` on one autocommit connection."""

    async def once() -> T:
        async with await db.connect(with_url(url).database, "test", autocommit=True) as conn:
            conn.prepare_threshold = None  # the npm build's sessions share prepared statements
            return await work(conn)

    return when_free(lambda: asyncio.run(once()))


def migrated(url: str) -> None:
    """Migrate; every tier has its policies."""

    async def work(conn: Connection) -> None:
        await migrate.migrate(conn)
        states = await retention.states(conn)
        assert {state.name for state in states} == {"free", "paid", "own"}
        for state in states:
            assert state.retention_by == "timescaledb"
            assert not state.by_worker
            assert len(state.jobs) == 2

    run(url, work)


def run_policies(conn: psycopg.Connection, proc: str, tier: str) -> int:
    """Run a tier's policies of one kind at once, as the scheduler would; how many there are.

    Those that rest stay at rest.
    """
    jobs = conn.execute(
        "SELECT job_id FROM timescaledb_information.jobs"
        " WHERE proc_name = %s AND scheduled AND hypertable_name IN (%s, %s)",
        (proc, f"telemetry_{tier}", f"telemetry_{tier}_text"),
    ).fetchall()
    for (job,) in jobs:
        conn.execute("CALL run_job(%s)", (job,))
    return len(jobs)
