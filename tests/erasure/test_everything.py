"""After an erasure nothing of theirs is found anywhere, and nothing of the others has changed."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import uuid
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import belongings
from belongings import Belongings, Wanted
from leaving import TIERS, Leaving
from paqett import accounts, db, devices
from paqett.erasure import steps, sweep
from paqett.exports import records
from paqett.worker import erasure, reapplying
from stacks import until
from support import at, create, drop

ACCOUNTS = st.builds(
    Wanted,
    tier=st.sampled_from(TIERS),
    devices=st.integers(0, 3),
    readings=st.integers(0, 40),
    moving=st.booleans(),
    device_going=st.booleans(),
)
WORLDS = st.lists(st.tuples(ACCOUNTS, st.booleans()), min_size=2, max_size=4)
_numbers = itertools.count(1)


def hold(leaving: Leaving, world: list[tuple[Wanted, bool]]) -> None:
    """Make accounts, erase some, look everywhere."""
    made = [
        (belongings.make(leaving.url, wanted, next(_numbers), leaving.folder), goes)
        for wanted, goes in world
    ]
    kept = [one for one, goes in made if not goes]
    before = [belongings.checksum(leaving.url, one) for one in kept]

    async def work(leaving: Leaving) -> None:
        for one, goes in made:
            if goes:
                await leaving.erase(one.account)

    leaving.run(work)
    for one, goes in made:
        if goes:
            assert belongings.traces(leaving.url, one, leaving.folder) == []
    for one, was in zip(kept, before, strict=True):
        now = belongings.checksum(leaving.url, one)
        assert {
            table for table in was.keys() | now.keys() if was.get(table) != now.get(table)
        } == set()


@given(WORLDS)
@settings(
    max_examples=4, deadline=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_of_those_who_left_nothing_is_found(leaving: Leaving, world: Any) -> None:
    hold(leaving, world)


@pytest.mark.prove
@given(WORLDS)
@settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_of_many_who_left_nothing_is_found(leaving: Leaving, world: Any) -> None:
    hold(leaving, world)


def test_the_accounts_of_these_tests_have_something_in_every_table(leaving: Leaving) -> None:
    """A table somebody adds must be filled in tests/belongings.py, or nothing is proved of it."""
    full = [
        belongings.make(
            leaving.url, Wanted(tier, moving=True, device_going=True), n, leaving.folder
        )
        for n, tier in enumerate(TIERS)
    ]
    empty = set.intersection(*(belongings.unfilled(leaving.url, one) for one in full))
    # names accounts only until everybody has heard
    assert empty - {"directory_change"} == set()


def test_whatever_names_a_device_or_a_series_names_its_account(database_url: str) -> None:
    """What an erasure finds in the catalog, it finds by account_id."""
    with psycopg.connect(database_url) as conn:
        for table, columns in belongings.tables(conn).items():
            if columns & {"device_id", "series_id", "device_ids"}:
                assert "account_id" in columns, table


class Killed(Exception):
    """The process went away."""


@pytest.fixture
def one(leaving: Leaving) -> tuple[Leaving, Belongings]:
    wanted = Wanted("own", devices=2, readings=30, moving=True, device_going=True)
    return leaving, belongings.make(leaving.url, wanted, 1, leaving.folder)


@pytest.mark.parametrize("step", list(erasure._ACCOUNT))
def test_killed_after_any_step_it_goes_on_from_there(
    one: tuple[Leaving, Belongings], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, made = one
    done = erasure._ACCOUNT[step]

    async def killed(services: Any, work: Any) -> None:
        await done(services, work)
        raise Killed

    async def work(leaving: Leaving) -> None:
        with monkeypatch.context() as patch:
            patch.setitem(erasure._ACCOUNT, step, killed)
            with pytest.raises(Killed):
                await leaving.erase(made.account)
        ((found, kept),) = leaving.rows(
            "SELECT id::text, step FROM erasure WHERE device_id IS NULL"
        )
        assert kept == ("done" if step == "account" else step)
        if step != "account":
            undone = leaving.rows("SELECT erasing FROM account WHERE id = %s", made.account)
            assert undone == [(True,)]
        await erasure.erase(leaving.services, found)
        await erasure._mail_receipt(leaving.services, found)
        (counted,) = leaving.rows("SELECT erased FROM erasure")[0]
        assert counted["account"] == 1
        # what was counted before the kill is counted once
        assert counted["session"] == 1
        assert sum(n for table, n in counted.items() if table.startswith("telemetry_")) == total

    total = leaving.readings()
    leaving.run(work)
    assert belongings.traces(leaving.url, made, leaving.folder) == []


_KILLED = """
import asyncio, sys
from paqett import app
from paqett.erasure import steps, sweep
from paqett.exports import records
from paqett.settings import load
from paqett.worker import erasure
sweep.MOST_ROWS = steps.MOST_ROWS = 3
async def run():
    async with app.services(load(), "test") as services:
        print("up", flush=True)
        await erasure.erase(services, sys.argv[1])
        await erasure._mail_receipt(services, sys.argv[1])
        print("done", flush=True)
asyncio.run(run())
"""


def _goes_on(leaving: Leaving, child: subprocess.Popen[str], left: int) -> bool:
    return leaving.readings() < left or child.poll() is not None


def test_killed_for_real_again_and_again_it_ends_with_nothing_left(
    one: tuple[Leaving, Belongings],
) -> None:
    leaving, made = one
    total = leaving.readings()
    found: list[str] = []

    async def ask(leaving: Leaving) -> None:
        await leaving.close(made.account, at_once=True)
        found.append(str(leaving.rows("SELECT id FROM erasure WHERE device_id IS NULL")[0][0]))

    leaving.run(ask)
    environ = {
        **os.environ, **leaving.environ, "PAQETT_DATABASE__URL": leaving.url,
        "PAQETT_STRIPE__SECRET_KEY": "",
    }  # fmt: skip

    def start() -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", _KILLED, found[0]],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return child

    left = total
    for _ in range(3):
        child = start()
        until(partial(_goes_on, leaving, child, left), "it erases")
        child.send_signal(signal.SIGKILL)
        child.communicate()
        left = leaving.readings()
    with start() as last:
        assert last.communicate()[0].endswith("done\n")
    assert belongings.traces(leaving.url, made, leaving.folder) == []
    (counted,) = leaving.rows("SELECT erased FROM erasure")[0]
    assert sum(n for table, n in counted.items() if table.startswith("telemetry_")) == total


def test_what_is_restored_is_erased_again(one: tuple[Leaving, Belongings], server_url: str) -> None:
    """A backup of before, restored after: an account that is gone is there again, and a device."""
    leaving, made = one
    kept = belongings.make(leaving.url, Wanted(devices=2), 2, leaving.folder)
    old = f"paqett_test_{uuid.uuid4().hex[:8]}"
    create(server_url, old, leaving.url.rsplit("/", 1)[1])

    async def work(leaving: Leaving) -> None:
        await leaving.erase(made.account)
        async with db.transaction(leaving.services.pool) as conn:
            account = await accounts.find(conn, str(kept.account))
            await devices.delete(conn, account, kept.devices[0])
        await leaving.work()

    leaving.run(work)
    assert [stone.get("device") for stone in leaving.tombstones()] == [None, kept.devices[0]]
    before = belongings.checksum(leaving.url, kept)
    restored = Leaving(at(server_url, old), leaving.folder)
    try:
        # somebody new has the number that was free in the backup
        restored.rows("UPDATE account SET created_at = now() WHERE id = %s", kept.account)

        async def again(restored: Leaving) -> None:
            done = await reapplying.reapply(restored.services)
            assert (done.known, done.accounts, done.devices) == (2, 1, 1)
            done = await reapplying.reapply(restored.services)
            assert (done.known, done.accounts, done.devices) == (4, 0, 0)

        with restored.server:
            restored.run(again)
        assert belongings.traces(restored.url, made, restored.folder) == []
        assert restored.rows("SELECT id FROM device") == [(kept.devices[1],)]
        after = belongings.checksum(restored.url, kept)
        changed = {table for table in before if before[table] != after.get(table)}
        assert changed <= {"account", "jobs"}
        assert restored.rows("SELECT mail_to FROM erasure") == [(None,)]  # it was told before
    finally:
        drop(server_url, old)


def test_an_account_made_after_the_restore_keeps_its_number(leaving: Leaving) -> None:
    made = belongings.make(leaving.url, Wanted(devices=1), 1, leaving.folder)

    async def work(leaving: Leaving) -> None:
        await leaving.erase(made.account)
        leaving.rows(
            "INSERT INTO account (id, email, plan, tier) OVERRIDING SYSTEM VALUE"
            " VALUES (%s, 'new@example.org', 'own', 'own')", made.account,
        )  # fmt: skip
        done = await reapplying.reapply(leaving.services)
        assert (done.known, done.accounts) == (1, 0)

    leaving.run(work)
    assert leaving.rows("SELECT email FROM account") == [("new@example.org",)]


def test_a_step_never_takes_more_than_it_may(leaving: Leaving, monkeypatch: Any) -> None:
    """However dense or sparse the readings are, and in however many series."""
    made = belongings.make(leaving.url, Wanted(devices=0), 1, leaving.folder)
    monkeypatch.setattr(sweep, "MOST_ROWS", 100)
    leaving.rows(
        "INSERT INTO telemetry_own SELECT now() - n * interval '1 s', %s, n %% 3 + 1, n"
        " FROM generate_series(1, 2000) AS n", made.account,
    )  # fmt: skip
    leaving.rows(
        "INSERT INTO telemetry_own SELECT now() - n * interval '10 days', %s, 4, n"
        " FROM generate_series(1, 20) AS n", made.account,
    )  # fmt: skip

    async def work(leaving: Leaving) -> None:
        reach: sweep.Reach | None = sweep.Reach()
        taken = []
        while reach is not None:
            async with db.transaction(leaving.services.pool) as conn:
                reach = await sweep.erase_some(conn, made.account, [1, 2, 3, 4], reach)
                taken.append(sum(reach.rows.values()) if reach else 0)
        assert sum(taken) == 2020
        assert max(taken) <= 100
        assert len(taken) < 120

    leaving.run(work)


def test_readings_of_no_known_series_are_found_all_the_same(leaving: Leaving) -> None:
    made = belongings.make(leaving.url, Wanted(devices=1), 1, leaving.folder)
    leaving.rows("INSERT INTO telemetry_paid VALUES (now(), %s, 999, 1)", made.account)
    leaving.rows("INSERT INTO telemetry_free_text VALUES (now(), %s, 999, 'x')", made.account)

    async def work(leaving: Leaving) -> None:
        await leaving.erase(made.account)

    leaving.run(work)
    assert leaving.readings() == 0


def test_a_job_that_is_in_hand_is_waited_for(leaving: Leaving) -> None:
    made = belongings.make(leaving.url, Wanted(devices=0), 1, leaving.folder)
    leaving.rows("UPDATE procrastinate_jobs SET status = 'doing'")

    async def work(leaving: Leaving) -> None:
        erasing = asyncio.create_task(leaving.erase(made.account))
        at_jobs = "SELECT id FROM erasure WHERE step = 'jobs'"
        await asyncio.to_thread(until, lambda: leaving.rows(at_jobs), "it is at the jobs")
        assert leaving.rows("SELECT id FROM account") == [(made.account,)]
        leaving.rows(
            "UPDATE procrastinate_jobs SET status = 'failed' WHERE args ->> 'to' IS NOT NULL"
        )
        await erasing

    leaving.run(work)
    assert belongings.traces(leaving.url, made, leaving.folder) == []


def test_what_comes_in_the_last_moment_is_erased_too(leaving: Leaving, monkeypatch: Any) -> None:
    """A row that appears after its table was emptied holds the end up until it is gone."""
    made = belongings.make(leaving.url, Wanted(devices=0), 1, leaving.folder)
    finish, times = steps.finish, itertools.count()

    async def late(conn: Any, work: Any, now: Any) -> None:
        if next(times) == 0:
            leaving.rows("INSERT INTO usage_warning VALUES (%s, current_date, 90)", made.account)
        await finish(conn, work, now)

    monkeypatch.setattr(steps, "finish", late)

    async def work(leaving: Leaving) -> None:
        await leaving.erase(made.account)

    leaving.run(work)
    assert next(times) == 2
    assert belongings.traces(leaving.url, made, leaving.folder) == []


@pytest.mark.parametrize("name", ["finish", "erase_rows"])
def test_an_archive_that_is_finished_in_the_last_moment_goes_too(
    leaving: Leaving, monkeypatch: Any, name: str
) -> None:
    """Whoever is still signed in may ask for one until the account's row is gone."""
    made = belongings.make(leaving.url, Wanted(devices=0), 1, leaving.folder)
    step, times = getattr(steps, name), itertools.count()
    folder = leaving.folder / "exports"

    async def late(*given: Any) -> Any:
        if next(times) == 0:
            (number,) = leaving.rows(
                "INSERT INTO export (account_id, format, status, created_at)"
                " VALUES (%s, 'csv', 'ready', now()) RETURNING id", made.account,
            )[0]  # fmt: skip
            records.file_of(folder, made.account, number).write_bytes(b"everything")
        return await step(*given)

    monkeypatch.setattr(steps, name, late)

    async def work(leaving: Leaving) -> None:
        await leaving.erase(made.account)

    leaving.run(work)
    assert next(times) >= 2
    assert records.files_of(folder, made.account) == []
