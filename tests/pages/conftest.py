"""One API, one database and one browser for each module of tests about pages."""

import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from playwright.sync_api import Browser, sync_playwright
from psycopg import sql

from site_of_tests import CHROMIUM, Eyes, Member, Site
from support import at, create, drop


@pytest.fixture(scope="module")
def site_url(server_url: str, template: str) -> Iterator[str]:
    """A superuser's address of a fresh, migrated database for the module."""
    name = f"paqett_test_{uuid.uuid4().hex[:8]}"
    create(server_url, name, template)
    yield at(server_url, name)
    drop(server_url, name)


@pytest.fixture(scope="module")
def api_url(site_url: str, template: str) -> str:
    """The same as the role that the API has, so that pages can do no more than it may."""
    role, password = f"{template}_api", secrets.token_hex(12)
    with psycopg.connect(site_url, autocommit=True) as conn:
        made = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
        conn.execute(made.format(sql.Identifier(role), sql.Literal(password)))
    where = urlsplit(site_url)
    host = where.netloc.rpartition("@")[2]
    return urlunsplit(where._replace(netloc=f"{role}:{password}@{host}"))


@pytest.fixture(scope="module")
def site(site_url: str, api_url: str) -> Iterator[Site]:
    with Site(site_url, api_url).running() as running:
        yield running


@pytest.fixture(scope="module")
def owner(site: Site) -> Member:
    """Whose things the pages show."""
    return site.member("ada")


@pytest.fixture(scope="module")
def stranger(site: Site) -> Member:
    """Somebody else, who must see nothing of it."""
    return site.member("mallory")


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """Debian's Chromium; `make test` brings it.

    Not for the session: Playwright's event loop stays in the thread, and other modules need one.
    """
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def eyes(browser: Browser, site: Site) -> Iterator[Eyes]:
    """Pictures go to the folder PAQETT_TEST_SHOTS names."""
    named = os.environ.get("PAQETT_TEST_SHOTS")
    shots = Path(named) if named else None
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
    looking = Eyes(browser, site, shots)
    yield looking
    looking.close()
