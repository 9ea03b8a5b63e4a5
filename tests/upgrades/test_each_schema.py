"""From every earlier schema, with rows of its time, to today's: all is kept, the API answers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar

from paqett import app, migrate
from paqett.web.server import create_app
from past_schemas import ACCOUNTS, Walk, holds, key_of, rows_of_each, shape
from support import at, create, drop, in_database, with_url

STEPS = list(migrate.migrations())
# what an upgrade itself writes, beside what was there
ADDED = {"schema_migration", "directory_change"}
# 0042: nothing that had expired is left where no move is open
CHANGED = {"account": {"readable_from"}}


@pytest.fixture(scope="module")
def walk(server_url: str) -> Iterator[Walk]:
    walk = Walk(server_url)
    try:
        walk.go()
        yield walk
    finally:
        walk.drop()


@pytest.fixture(scope="module")
def fresh(server_url: str, template: str) -> set[str]:
    """The shape of a database that never had another schema."""
    name = f"{template}_fresh"
    create(server_url, name, template)
    with psycopg.connect(at(server_url, name)) as conn:
        found = shape(conn)
    drop(server_url, name)
    return found


class Api:
    """One application for every step: its database has the same name each time."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._opened = app.services(with_url(url), "test")
        self._services = self._runner.run(self._opened.__aenter__())
        self._application = create_app(self._services)

    def answers(self, before: dict[str, list[dict[str, Any]]]) -> None:
        self._runner.run(answers(self._services, self._application, before))

    async def _close(self) -> None:
        await self._application.state.door.close()
        await self._application.state.hub.close()
        await self._opened.__aexit__(None, None, None)

    def close(self) -> None:
        self._runner.run(self._close())
        self._runner.close()


@pytest.fixture(scope="module")
def api(walk: Walk) -> Iterator[Api]:
    api = Api(walk.url)
    yield api
    api.close()


@pytest.mark.parametrize("step", STEPS[:-1])
def test_an_upgrade_keeps_every_row_and_the_api_answers(
    walk: Walk, fresh: set[str], api: Api, step: str
) -> None:
    walk.back_to(step)
    with psycopg.connect(walk.url) as conn:
        before = holds(conn)
    assert in_database(walk.url, migrate.migrate) == STEPS[STEPS.index(step) + 1 :]
    with psycopg.connect(walk.url) as conn:
        after, now = holds(conn), shape(conn)
    for table, rows in before.items():
        kept = [only(row, rows, table) for row in after[table]]
        wanted = [only(row, rows, table) for row in rows]
        if table in ADDED:
            assert all(row in kept for row in wanted), table
        else:
            assert sorted(kept, key=repr) == sorted(wanted, key=repr), table
    assert (now - fresh, fresh - now) == (set(), set())
    api.answers(before)


def only(row: dict[str, Any], before: list[dict[str, Any]], table: str) -> dict[str, Any]:
    """Of `row` what the table had before and no migration is to change."""
    columns = set(before[0]) if before else set()
    return {name: row[name] for name in sorted(columns - CHANGED.get(table, set()))}


async def answers(services: app.Services, application: Litestar, before: dict[str, Any]) -> None:
    """What was there is what people and programs are told."""
    for pool in (services.pool, services.readers._primary):
        await pool.check()  # the database of the step before is gone, and so are its connections
    transport = httpx.ASGITransport(application)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for account in ACCOUNTS:
            await _telemetry(client, account)
            await _people(client, account, before)


async def _telemetry(client: httpx.AsyncClient, account: str) -> None:
    async def ask(path: str) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key_of(account)}"}
        answer = await client.get(f"/api/v1{path}", headers=headers)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    device = next(one for one in await ask("/devices") if one["id"] == account)
    assert (device["thing_name"], device["tags"]) == ("boiler", ["cellar", "warm"])
    metrics = await ask(f"/devices/{account}/metrics")
    assert {(one["metric"], one["unit"]) for one in metrics} == {
        ("temperature", "°C"), ("state", None), ("open", None),
    }  # fmt: skip
    raw = await ask(f"/devices/{account}/telemetry?from=-3d&metrics=temperature,state")
    assert [one["value"] for one in raw] == [6, 5, 4, 3, 2, 1, "warm"]
    latest = {one["metric"]: one["value"] for one in await ask(f"/devices/{account}/latest")}
    assert latest == {"temperature": 1, "state": "warm", "open": True}


async def _people(client: httpx.AsyncClient, account: str, before: dict[str, Any]) -> None:
    """By the session, and the alert rules, where the schema had them already."""

    async def ask(path: str) -> Any:
        answer = await client.get(
            f"/api/v1{path}", headers={"Cookie": f"paqett_session={account}@example.org"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    if "session" in before:
        told = await ask("/account")
        assert (told["email"], told["surname"]) == (f"{account}@example.org", "Lovelace")
        assert len((await ask("/sessions"))["items"]) == 1
        assert [key["name"] for key in (await ask("/api-keys"))["items"]] == ["upgrade"]
    if "notice" in before:
        assert [one["event"] for one in (await ask("/notices"))["items"]] == ["key_created"]
    if "alert_rule" in before:
        rules = (await ask("/alert-rules"))["items"]
        assert {rule["name"] for rule in rules} == {"too warm", "silent"}
        assert [one["state"] for one in (await ask("/alerts"))["items"]] == ["firing"]


def test_rows_stand_for_every_table_of_the_schema_before_the_last(walk: Walk) -> None:
    assert rows_of_each().keys() <= set(STEPS)
    walk.back_to(STEPS[-2])
    with psycopg.connect(walk.url) as conn:
        empty = {name for name, rows in holds(conn).items() if not rows}
    assert empty == set(), "add some to tests/upgrades/rows.sql"
