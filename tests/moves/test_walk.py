"""No reading is missing, doubled or visible past its retention, whatever happens in any order."""

import asyncio
from pathlib import Path

import pytest

from paqett import migrate
from support import in_database, make_tenant
from walker import Walk


@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        (1, 40),
        (2, 40),
        *(pytest.param(seed, 400, marks=pytest.mark.prove) for seed in range(100, 130)),
    ],
)
def test_every_way_of_looking_agrees_with_a_dictionary(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int
) -> None:
    # few readings, and yet many slices to be killed between and within
    monkeypatch.setattr("paqett.move_slices._MOST", 7)
    in_database(bare_database_url, migrate.migrate)  # SQL logins need this database's own roles
    tenant = make_tenant(bare_database_url, "walker", plan="free")
    walk = Walk(bare_database_url, tmp_path, tenant, seed)
    asyncio.run(walk.walk(steps))
    assert walk.done["killed"] > 0
    assert {"send", "change_plan", "grace_ends", "carry", "storm"} <= set(walk.done)
