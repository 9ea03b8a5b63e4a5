"""A shop, with Stripe's fake on loopback."""

from collections.abc import Callable, Iterator

import pytest

from shop import LOOKUP_KEY, Shop


@pytest.fixture
def make_shop(database_url: str) -> Iterator[Callable[..., Shop]]:
    """Shops with other settings; their fakes end with the test."""
    open_ones: list[Shop] = []

    def make(**environ: str) -> Shop:
        made = Shop(database_url, **environ)
        made.server.__enter__()
        made.fake.add_price(LOOKUP_KEY, 900)
        open_ones.append(made)
        return made

    yield make
    for made in open_ones:
        made.server.__exit__()


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop()
