"""A worker with a clock of the test's."""

from pathlib import Path

import pytest

from post import Postman
from support import Tenant, make_tenant


@pytest.fixture
def postman(database_url: str, tmp_path: Path) -> Postman:
    return Postman(database_url, tmp_path)


@pytest.fixture
def tenant(postman: Postman) -> Tenant:
    made = make_tenant(postman.url, "ada")
    postman.rows(
        "INSERT INTO channel (account_id, name, url, secret, created_at)"
        " VALUES (%s, 'c', 'https://x/', 's', now())",
        made.account_id,
    )
    return made
