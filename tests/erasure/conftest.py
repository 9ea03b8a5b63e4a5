"""People who leave: the API, a worker, and Stripe's fake, in one event loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leaving import Leaving
from shop import LOOKUP_KEY


@pytest.fixture
def leaving(database_url: str, tmp_path: Path) -> Iterator[Leaving]:
    made = Leaving(database_url, tmp_path)
    with made.server:
        made.fake.add_price(LOOKUP_KEY, 900)
        yield made
