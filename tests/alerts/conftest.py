"""Houses, and a server that webhooks go to."""

from collections.abc import Iterator

import pytest

from house import House
from paqett.settings import Settings
from receiver import Receiver
from support import Tenant


@pytest.fixture
def house(settings: Settings, owner: Tenant) -> House:
    return House(settings, owner)


@pytest.fixture
def free_house(settings: Settings, free_tenant: Tenant) -> House:
    return House(settings, free_tenant)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody's server."""
    made = Receiver()
    yield made
    made.stop()
