"""What several tests need beside the fixtures: servers, databases, tenants."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg import sql

import leaks
from paqett import db, grafana
from paqett.db import Connection
from paqett.local import postgres
from paqett.mqtt.credentials import new_device_id, new_secret, verifier
from paqett.settings import Settings, load
from ports import free_port

IMAGE = "timescale/timescaledb:2.23.0-pg17"


def with_url(url: str, **environ: str) -> Settings:
    """Settings whose database is `url`."""
    return load({"PAQETT_DATABASE__URL": url, **environ})


def at(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def in_database(url: str, work: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
    """Run `work` on an autocommit connection to `url`."""

    async def run() -> Any:
        async with await db.connect(with_url(url).database, "test", autocommit=True) as conn:
            return await work(conn)

    return asyncio.run(run())


def container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(IMAGE, driver=None) as server:
        yield server.get_connection_url()
        hang_up(server.get_connection_url())


def docker_has_image() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    return done.returncode == 0


# Most of what a test costs is its database: these halve it. Nobody kills this server, and none of
# its databases outlives its test; tests/stack kills servers of its own, which keep what they say.
_CARELESS = """\
fsync = off
full_page_writes = off
synchronous_commit = off
max_wal_size = '256MB'
"""


def _roomy() -> str:
    """Memory, where there is enough of it; /tmp may be a small tmpfs."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if roomy else "/var/tmp"


def own_cluster() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="paqett-test-", dir=_roomy()))
    folder.chmod(0o755)  # the server's user must be able to enter it
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 55000 + 300 * worker + os.getpid() % 250  # others may look for a port at this moment
    cluster = postgres.create(folder / "postgres", free_port(first))
    with (folder / "postgres" / "data" / "postgresql.conf").open("a") as conf:
        conf.write(_CARELESS)
    server = postgres.start(cluster, folder / "server.log")
    try:
        postgres.wait_ready(cluster.url())
        # 4,096 rounds are half of what a client spends on a connection, of which a test makes ten
        quick = grafana.scram_verifier(cluster.password, rounds=1)
        _administrator(cluster.url()).execute(
            sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(quick))
        )
        yield cluster.url()
    finally:
        hang_up(cluster.url())
        server.send_signal(2)
        server.wait(30)
        leaks.check_files(folder)
        shutil.rmtree(folder)


_administrators: dict[str, psycopg.Connection] = {}


def _administrator(server: str) -> psycopg.Connection:
    """A connection that stays: every test's database is made and dropped on it."""
    conn = _administrators.get(server)
    if conn is None or conn.closed:
        conn = _administrators[server] = psycopg.connect(server, autocommit=True)
    return conn


def hang_up(server: str) -> None:
    """Before the server ends."""
    if server in _administrators:
        _administrators.pop(server).close()


def drop(server: str, name: str) -> None:
    conn = _administrator(server)
    conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    roles = conn.execute(
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (f"{name}_",)
    ).fetchall()
    # accounts' logins first: what they are in follows
    for (role,) in sorted(roles, reverse=True):
        _drop_role(conn, sql.Identifier(role))


def _drop_role(conn: psycopg.Connection, role: sql.Identifier) -> None:
    """Other workers drop theirs on the same server, and what all databases share cannot wait."""
    while True:
        try:
            conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
        except psycopg.errors.InternalError_ as error:
            if "concurrently" not in str(error):
                raise
        else:
            return


def create(server: str, name: str, template: str = "template0") -> None:
    """Clone `template`; TimescaleDB's own workers may sit in another than template0 for 5 s.

    By copying files: half of what it costs to write every page into the log.
    """
    deadline = time.monotonic() + 30
    made = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    while True:
        try:
            _administrator(server).execute(made)
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def close(server: str, name: str) -> None:
    """Nobody may enter: a worker of TimescaleDB's in a template holds up every clone for 5 s."""
    conn = _administrator(server)
    conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
    )


class Tenant(msgspec.Struct):
    """An account with two devices; `secrets` by device id."""

    account_id: int
    devices: list[str]


def make_tenant(url: str, name: str, plan: str = "own", devices: int = 2) -> Tenant:
    """An account on `plan` (whose tier has the same name) with its devices."""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "INSERT INTO account (email, plan, tier) VALUES (%s, %s, %s) RETURNING id",
            (f"{name}@example.org", plan, plan),
        ).fetchone()
        assert row is not None
        ids = [new_device_id() for _ in range(devices)]
        for number, device_id in enumerate(ids):
            conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier) VALUES (%s, %s, %s, %s)",
                (device_id, row[0], f"{name}-{number}", verifier(new_secret())),
            )
    return Tenant(row[0], ids)
