"""Real PostgreSQL with TimescaleDB for every test: a database of its own, cloned from a template.

The server is PAQETT_TEST_DATABASE_URL's, else a container where a Docker engine and the image are
at hand, else a cluster made from this machine's binaries.
"""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import forked
import kept

# hooks: pytest finds them here
from leaks import pytest_configure, pytest_runtest_makereport  # noqa: F401
from paqett import migrate
from paqett.settings import Settings
from support import (
    Tenant,
    at,
    close,
    container,
    create,
    docker_has_image,
    drop,
    hang_up,
    in_database,
    make_tenant,
    own_cluster,
    with_url,
)

_configure = structlog.configure


def _configure_loosely(**how: Any) -> None:
    _configure(**{**how, "cache_logger_on_first_use": False})


structlog.configure = _configure_loosely


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A test that configures logging, as every command does, does so for itself alone."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's address of a server with TimescaleDB."""
    given = os.environ.get("PAQETT_TEST_DATABASE_URL")
    if given:
        yield given
        hang_up(given)
    elif docker_has_image():
        yield from container()
    else:
        yield from own_cluster()


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A migrated database that is only ever cloned."""
    name = f"paqett_template_{uuid.uuid4().hex[:8]}"
    create(server_url, name)
    in_database(at(server_url, name), migrate.migrate)
    close(server_url, name)
    yield name
    drop(server_url, name)


@pytest.fixture
def database_url(server_url: str, template: str) -> Iterator[str]:
    """A superuser's address of a fresh, migrated database."""
    name = f"paqett_test_{uuid.uuid4().hex[:8]}"
    create(server_url, name, template)
    yield at(server_url, name)
    kept.close_all()
    drop(server_url, name)


@pytest.fixture
def bare_database_url(server_url: str) -> Iterator[str]:
    """The same without a schema: for migrations and roles."""
    name = f"paqett_bare_{uuid.uuid4().hex[:8]}"
    create(server_url, name)
    yield at(server_url, name)
    kept.close_all()
    drop(server_url, name)


@pytest.fixture(scope="session")
def paqett(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command, for what is done and over: it does not import the program at every call."""
    with forked.command(tmp_path_factory.mktemp("command")) as folder:
        yield str(folder / "paqett")


@pytest.fixture
def settings(database_url: str) -> Settings:
    """The shipped defaults on the test's own database."""
    return with_url(database_url)


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
