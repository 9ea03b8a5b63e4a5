"""A worker with a clock of the test's."""

from pathlib import Path

import pytest

from post import Postman


@pytest.fixture
def postman(database_url: str, tmp_path: Path) -> Postman:
    return Postman(database_url, tmp_path)
