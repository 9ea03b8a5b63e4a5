"""A Community server for each file of this folder."""

import os
from collections.abc import Iterator

import pytest

from community_server import community


@pytest.fixture(scope="module")
def community_url() -> Iterator[str]:
    """A superuser's address of a migrated database on TimescaleDB Community."""
    yield from community(os.environ.get("PAQETT_TEST_DATABASE_URL"))
