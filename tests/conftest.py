"""Real PostgreSQL with TimescaleDB for every test: a database of its own, cloned from a template.

The server is PAQETT_TEST_DATABASE_URL's, else a container where a Docker engine and the image are
at hand, else a cluster made from this machine's binaries.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
import pytest
from psycopg import sql

from paqett import db, migrate
from paqett.children import free_port
from paqett.db import Connection
from paqett.local import postgres
from paqett.settings import Settings, load

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


def _container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(IMAGE, driver=None) as server:
        yield server.get_connection_url()


def _docker_has_image() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    return done.returncode == 0


def _own_cluster() -> Iterator[str]:
    # /var/tmp, since the server's user must be able to enter it and /tmp may be a small tmpfs
    folder = Path(tempfile.mkdtemp(prefix="paqett-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    cluster = postgres.create(folder / "postgres", free_port(55000 + 300 * worker))
    server = postgres.start(cluster, folder / "server.log")
    try:
        postgres.wait_ready(cluster.url())
        yield cluster.url()
    finally:
        server.send_signal(2)
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's address of a server with TimescaleDB."""
    given = os.environ.get("PAQETT_TEST_DATABASE_URL")
    if given:
        yield given
    elif _docker_has_image():
        yield from _container()
    else:
        yield from _own_cluster()


def _drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
        for role in ("owner", "api", "ingest", "worker"):
            conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_{role}")))


def _create(server: str, name: str, template: str = "template1") -> None:
    """Clone `template`; TimescaleDB's own workers may sit in it for a moment."""
    deadline = time.monotonic() + 30
    with psycopg.connect(server, autocommit=True) as conn:
        while True:
            try:
                conn.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(name), sql.Identifier(template)
                    )
                )
            except psycopg.errors.ObjectInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A migrated database that is only ever cloned."""
    name = f"paqett_template_{uuid.uuid4().hex[:8]}"
    _create(server_url, name)
    in_database(at(server_url, name), migrate.migrate)
    yield name
    _drop(server_url, name)


@pytest.fixture
def database_url(server_url: str, template: str) -> Iterator[str]:
    """A superuser's address of a fresh, migrated database."""
    name = f"paqett_test_{uuid.uuid4().hex[:8]}"
    _create(server_url, name, template)
    yield at(server_url, name)
    _drop(server_url, name)


@pytest.fixture
def bare_database_url(server_url: str) -> Iterator[str]:
    """The same without a schema: for migrations and roles."""
    name = f"paqett_bare_{uuid.uuid4().hex[:8]}"
    _create(server_url, name)
    yield at(server_url, name)
    _drop(server_url, name)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """The shipped defaults on the test's own database."""
    return with_url(database_url)


class Tenant(msgspec.Struct):
    """An account with two devices; `secrets` by device id."""

    account_id: int
    devices: list[str]


def make_tenant(url: str, name: str, plan: str = "own", devices: int = 2) -> Tenant:
    """An account on `plan` (whose tier has the same name) with its devices."""
    from paqett.mqtt.credentials import new_device_id, new_secret, verifier

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


@pytest.fixture
def owner(database_url: str) -> Tenant:
    """The account most tests are about."""
    return make_tenant(database_url, "owner")


@pytest.fixture
def free_tenant(database_url: str) -> Tenant:
    """An account on another plan, in another tier."""
    return make_tenant(database_url, "free", plan="free")


@pytest.fixture
def attacker(database_url: str) -> Tenant:
    """An account of somebody who wants what is not theirs."""
    return make_tenant(database_url, "attacker")
