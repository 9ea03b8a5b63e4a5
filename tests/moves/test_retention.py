"""Retention drops nothing that an open move still owes, on both editions, however long it takes."""

from datetime import datetime, timedelta

import psycopg

from community_server import run_policies
from door import NOW
from grafana_support import add_series
from paqett import doctor, moves, retention
from paqett.db import Connection
from support import Tenant, in_database, make_tenant

OWED = timedelta(days=9)


def open_move(url: str, *, began: timedelta) -> tuple[Tenant, int]:
    """An upgrade that began so long ago and has carried nothing yet; a reading it still owes."""
    tenant = make_tenant(url, "mover", plan="free")
    with psycopg.connect(url) as conn:
        series = add_series(conn, tenant, "m", "number")
        for age in (OWED, timedelta(days=15)):
            conn.execute(
                "INSERT INTO telemetry_free VALUES (%s, %s, %s, 1)",
                (NOW - age, tenant.account_id, series),
            )
        conn.execute(
            "UPDATE account SET tier = 'paid', plan = 'paid', moving_from = 'free',"
            " readable_from = %s WHERE id = %s",
            (NOW - began - timedelta(days=7), tenant.account_id),
        )
        conn.execute("SELECT settle_retention('free')")
    return tenant, series


def retain(url: str) -> None:
    """What the scheduler and the worker do."""
    with psycopg.connect(url, autocommit=True) as conn:
        run_policies(conn, "policy_retention", "free")
        conn.execute("SELECT apply_retention('free')")


def ages(url: str, tier: str) -> list[int]:
    with psycopg.connect(url) as conn:
        rows = conn.execute(f"SELECT time FROM telemetry_{tier} ORDER BY time").fetchall()
    return [round((NOW - time) / timedelta(days=1)) for (time,) in rows]


def carry(url: str, account_id: int, now: datetime = NOW) -> None:
    async def work(conn: Connection) -> None:
        more = True
        while more:
            async with conn.transaction():
                more = await moves.move_slice(conn, account_id, now)
        async with conn.transaction():
            assert await moves.close_move(conn, account_id)

    in_database(url, work)


def test_what_a_long_move_owes_stays_until_it_is_carried(database_url: str) -> None:
    tenant, _ = open_move(database_url, began=timedelta(days=3))
    retain(database_url)
    assert ages(database_url, "free") == [9]  # what had expired before it began is gone
    carry(database_url, tenant.account_id)
    assert (ages(database_url, "free"), ages(database_url, "paid")) == ([], [9])
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO telemetry_free VALUES (%s, 1, 1, 1)", (NOW - OWED,))
    retain(database_url)
    assert ages(database_url, "free") == []


def test_policies_rest_while_a_move_needs_it_and_the_doctor_says_so(database_url: str) -> None:
    tenant, _ = open_move(database_url, began=timedelta())

    async def look(conn: Connection) -> tuple[bool, set[bool], str]:
        (free,) = [state for state in await retention.states(conn) if state.name == "free"]
        (said,) = [f.detail for f in await doctor.examine(conn, NOW) if f.subject == "tier free"]
        return free.by_worker, {job["scheduled"] for job in free.jobs}, said

    by_worker, scheduled, said = in_database(database_url, look)
    assert by_worker
    assert scheduled in (set(), {False})
    assert ("rest" in said) == (scheduled == {False})
    carry(database_url, tenant.account_id)
    by_worker, scheduled, said = in_database(database_url, look)
    assert (by_worker, scheduled) in [(True, set()), (False, {True})]
    assert "rest" not in said


def test_an_account_that_is_erased_on_its_way_leaves_no_policy_resting(database_url: str) -> None:
    tenant, _ = open_move(database_url, began=timedelta())

    async def settle(conn: Connection) -> set[bool]:
        await conn.execute("DELETE FROM account WHERE id = %s", (tenant.account_id,))
        for state in await retention.states(conn):
            await moves.settle_retention(conn, state)
        return {job["scheduled"] for state in await retention.states(conn) for job in state.jobs}

    assert in_database(database_url, settle) in (set(), {True})


def test_a_move_to_a_shorter_tier_needs_no_rest(database_url: str) -> None:
    tenant = make_tenant(database_url, "shrinking", plan="free")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE account SET moving_from = 'paid' WHERE id = %s", (tenant.account_id,))
        assert conn.execute("SELECT settle_retention('paid')").fetchone() == (False,)


def test_a_move_that_takes_long_is_told_to_the_operator_once(database_url: str) -> None:
    open_move(database_url, began=timedelta())

    async def look(conn: Connection, after: timedelta) -> int:
        return len(await moves.report_long(conn, NOW + after))

    async def work(conn: Connection) -> list[int]:
        await conn.execute(
            "INSERT INTO move (account_id, begun_at, carried_to, until)"
            " SELECT id, %s, %s, %s FROM account", (NOW, NOW, NOW),
        )  # fmt: skip
        return [await look(conn, timedelta(minutes=minutes)) for minutes in (5, 61, 62)]

    assert in_database(database_url, work) == [0, 1, 0]
