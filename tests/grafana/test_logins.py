"""A login is made, rotated, dropped and watched; where it cannot be kept apart it is refused."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import errors

from door import Door, message
from grafana_support import PLANS, Server, signed_in
from paqett import accounts, app, db, doctor, grafana, jobs, migrate, moves
from paqett.app import utc_now
from paqett.grafana import Ended, Login, LoginsUnavailable, NotInPlan, State
from paqett.worker import process as worker
from support import Tenant, in_database, make_tenant, with_url


def _drop(server: Server, tenant: Tenant) -> bool:
    async def work(conn: db.Connection) -> bool:
        return await grafana.drop(conn, tenant.account_id)

    dropped: bool = server.run(work, "api")
    return dropped


def _watch(server: Server, limit_s: float) -> list[Ended]:
    async def work(conn: db.Connection) -> list[Ended]:
        return await grafana.watch(conn, limit_s)

    ended: list[Ended] = server.run(work, "worker")
    return ended


def _find(server: Server, subject: str) -> doctor.Finding:
    async def work(conn: db.Connection) -> list[doctor.Finding]:
        return await doctor.examine(conn, utc_now())

    found: list[doctor.Finding] = server.run(work)
    return next(finding for finding in found if finding.subject == subject)


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _closed(conn: psycopg.Connection) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


@contextmanager
def _running(login: Login, statement: str) -> Iterator[tuple[psycopg.Connection, Future[Any]]]:
    """A statement that nobody but the watch ends."""
    with ThreadPoolExecutor(1) as pool, signed_in(login) as conn:
        conn.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        yield conn, pool.submit(conn.execute, statement)


def test_a_second_login_rotates_the_password_and_closes_what_the_first_opened(
    place: Server,
) -> None:
    tenant = make_tenant(place.url, "rotating")
    first = place.login(tenant)
    with signed_in(first) as conn:
        second = place.login(tenant)
        assert (second.user, second.database) == (first.user, place.name)
        assert second.password != first.password
        _eventually(lambda: _closed(conn))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        signed_in(first)
    signed_in(second).close()


def test_what_a_login_set_for_good_is_gone_after_a_rotation(place: Server) -> None:
    tenant = make_tenant(place.url, "settled")
    login = place.login(tenant)
    with signed_in(login) as conn:
        conn.execute("SET default_transaction_read_only = off")
        conn.execute(f'ALTER ROLE "{login.user}" SET default_transaction_read_only = off')
        conn.execute(f"ALTER ROLE \"{login.user}\" SET work_mem = '1GB'")
        conn.execute(
            f'ALTER ROLE "{login.user}" IN DATABASE {place.name} SET statement_timeout = 0'
        )
        conn.execute(f"ALTER ROLE \"{login.user}\" PASSWORD 'of my own'")
    with pytest.raises(psycopg.OperationalError):
        signed_in(login)
    with signed_in(place.login(tenant)) as conn:
        assert conn.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
        assert conn.execute("SHOW statement_timeout").fetchone() == ("20s",)
        assert conn.execute("SHOW work_mem").fetchone() != ("1GB",)


def test_a_dropped_login_is_gone_with_its_sessions(place: Server) -> None:
    tenant = make_tenant(place.url, "leaving")
    login = place.login(tenant)
    with signed_in(login) as conn:
        assert _drop(place, tenant)
        _eventually(lambda: _closed(conn))
    with pytest.raises(psycopg.OperationalError):
        signed_in(login)
    assert not _drop(place, tenant)
    with place.admin() as conn:
        left = conn.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", (login.user,))
        assert left.fetchone() == (0,)


def test_an_account_that_is_erased_takes_its_login_along(place: Server) -> None:
    tenant = make_tenant(place.url, "erased")
    login = place.login(tenant)
    with place.as_role("owner") as conn:
        conn.execute("DELETE FROM account WHERE id = %s", (tenant.account_id,))
    with pytest.raises(psycopg.OperationalError):
        signed_in(login)


def test_an_erasure_does_not_fail_for_what_an_operator_granted_besides(place: Server) -> None:
    tenant = make_tenant(place.url, "granted")
    login = place.login(tenant)
    with place.admin() as conn:
        conn.execute(f'GRANT SELECT ON tier TO "{login.user}"')
        conn.execute("DELETE FROM account WHERE id = %s", (tenant.account_id,))
        with pytest.raises(psycopg.OperationalError, match="password authentication"):
            signed_in(login)
        conn.execute(f'REVOKE SELECT ON tier FROM "{login.user}"; DROP ROLE "{login.user}"')


def test_a_plan_without_grafana_has_no_login_and_a_downgrade_ends_it(place: Server) -> None:
    tenant = make_tenant(place.url, "downgraded", plan="paid")
    with pytest.raises(NotInPlan) as refused:
        place.login(tenant, "free")
    assert (refused.value.status, refused.value.code) == (403, "not_in_plan")
    login = place.login(tenant, "paid")

    async def downgrade(conn: db.Connection) -> None:
        await moves.set_plan(conn, tenant.account_id, PLANS["free"], utc_now())

    place.run(downgrade, "worker")
    with pytest.raises(psycopg.OperationalError):
        signed_in(login)


def test_a_password_is_nowhere_but_in_the_answer(place: Server) -> None:
    tenant = make_tenant(place.url, "secretive")
    login = place.login(tenant)
    with place.admin() as conn:
        row = conn.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = %s", (login.user,)
        ).fetchone()
        assert row is not None
        assert row[0].startswith("SCRAM-SHA-256$4096:")
        assert login.password not in row[0]
        for bad in (
            "plain",
            "md5" + "0" * 32,
            "SCRAM-SHA-256$1:a$b:c",
            "SCRAM-SHA-256$x' SUPERUSER",
        ):
            with pytest.raises(errors.InvalidParameterValue):
                conn.execute("SELECT create_sql_login(%s, %s, 20)", (tenant.account_id, bad))


def test_two_requests_at_once_make_one_login(place: Server) -> None:
    tenant = make_tenant(place.url, "hasty")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: place.login(tenant), range(4)))
    assert len({login.user for login in made}) == 1
    good = 0
    for login in made:
        try:
            signed_in(login).close()
            good += 1
        except psycopg.OperationalError:
            continue
    assert good == 1


def test_a_runaway_is_cancelled_then_its_session_closed(place: Server) -> None:
    tenant = make_tenant(place.url, "runaway")
    login = place.login(tenant)
    with _running(login, "SELECT pg_sleep(600)") as (conn, running):
        time.sleep(0.3)
        assert _watch(place, 60) == []
        assert not running.done()
        ended = _watch(place, 0.1)
        assert [(one.login, one.action) for one in ended] == [(login.user, "canceled")]
        assert ended[0].seconds < 60
        with pytest.raises(errors.QueryCanceled):
            running.result(10)
        conn.execute("SELECT count(*) FROM grafana.telemetry")  # the session goes on
    for action, error in (("canceled", errors.QueryCanceled), ("terminated", errors.AdminShutdown)):
        with _running(login, "SELECT count(*) FROM generate_series(1, 1e12)") as (_, running):
            time.sleep(0.3)
            assert [one.action for one in _watch(place, 0.1)] == [action]
            with pytest.raises(error):
                running.result(10)


def test_an_idle_transaction_is_closed_and_an_idle_session_is_not(place: Server) -> None:
    login = place.login(make_tenant(place.url, "idle"))
    with signed_in(login) as idle, signed_in(login) as holding:
        holding.execute("SET idle_in_transaction_session_timeout = 0")
        holding.execute("BEGIN; SELECT count(*) FROM grafana.telemetry")
        time.sleep(0.2)
        assert [one.action for one in _watch(place, 0.1)] == ["terminated"]
        _eventually(lambda: _closed(holding))
        assert not _closed(idle)


def test_the_watch_leaves_everybody_else_alone(place: Server) -> None:
    with place.admin() as ours:
        ours.execute("BEGIN; SELECT 1")
        time.sleep(0.2)
        assert _watch(place, 0.05) == []
        assert not _closed(ours)


def test_a_session_whose_login_is_nobodys_is_closed(own_place: Server) -> None:
    stray = f"{own_place.name}_grafana_stray"
    with own_place.admin() as conn:
        conn.execute(f"CREATE ROLE {stray} LOGIN PASSWORD 'stray' IN ROLE {own_place.name}_grafana")
        login = own_place.login(make_tenant(own_place.url, "usual"))
        usual = Login(login.host, login.port, login.database, stray, "stray", "prefer")
        with signed_in(usual) as session:
            assert session.execute("SELECT count(*) FROM grafana.devices").fetchone() == (0,)
            assert _find(own_place, "sql logins").state == "failed"
            assert [one.login for one in _watch(own_place, 60)] == [stray]
            _eventually(lambda: _closed(session))


def test_ingest_does_not_notice_runaways(place: Server) -> None:
    """Every flush beside three of them is done within the time after which it would be spooled."""
    tenant = make_tenant(place.url, "beside")
    door = Door(place.settings)
    login = place.login(tenant)
    burn = "SELECT count(*) FROM generate_series(1, 1e12) AS a"
    hold = "BEGIN; LOCK TABLE grafana.telemetry IN ACCESS SHARE MODE; SELECT pg_sleep(600)"
    patience_s = place.settings.ingest.patience_ms / 1000
    with _running(login, burn) as one, _running(login, burn) as two, _running(login, hold) as three:
        time.sleep(0.3)
        for number in range(20):
            began = time.monotonic()
            door.send(message(tenant.devices[0], {"t": number}))
            assert time.monotonic() - began < patience_s
        assert len(_watch(place, 0.1)) == 3
        for _, running in (one, two, three):
            with pytest.raises(psycopg.OperationalError):
                running.result(10)


def test_the_worker_watches_and_counts(place: Server) -> None:
    login = place.login(make_tenant(place.url, "counted"))
    settings = with_url(place.url, PAQETT_GRAFANA__QUERY_LIMIT_S="1")

    def counted() -> float:
        return (
            REGISTRY.get_sample_value("paqett_sql_logins_ended_total", {"action": "canceled"})
            or 0.0
        )

    async def work() -> None:
        async with app.services(settings, "test") as services:
            await worker.watch_sql_logins(services)

    before = counted()
    with _running(login, "SELECT pg_sleep(600)") as (_, running):
        time.sleep(1.2)
        asyncio.run(work())
        with pytest.raises(errors.QueryCanceled):
            running.result(10)
    assert counted() == before + 1


def test_no_notification_of_a_login_reaches_the_worker(place: Server) -> None:
    """Any login may NOTIFY, and nothing can take that from it: so nobody acts on what it says."""
    login = place.login(make_tenant(place.url, "noisy"))

    async def write_job(conn: db.Connection) -> None:
        await jobs.defer(conn, "erase_series", account_id=1, series_ids=[])

    async def work() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(place.settings, stop))
        await asyncio.sleep(1.5)
        with signed_in(login) as conn, place.admin() as ours:
            conn.execute("SET default_transaction_read_only = off")
            for payload in ("", "x", "[]", '{"type": "abort_job_requested", "job_id": 1}'):
                conn.execute(f"NOTIFY procrastinate_any_queue_v1, '{payload}'")
            listening = ours.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query ~* '^listen.*procrastinate'"
            )
            assert listening.fetchone() == (0,)
            async with await db.connect(place.settings.database, "test") as writing:
                await write_job(writing)
            for _ in range(100):
                await asyncio.sleep(0.1)
                left = ours.execute(
                    "SELECT id FROM procrastinate_jobs WHERE task_name = 'erase_series'"
                ).fetchall()
                if not left:
                    break
            assert left == []  # done, and so gone
        stop.set()
        await asyncio.wait_for(running, 20)

    asyncio.run(work())
    assert _find(place, "watch").state == "ok"


def test_the_doctor_tells_what_is_wrong_with_logins(own_place: Server) -> None:
    assert _find(own_place, "sql logins").detail == "0, apart from one another"
    assert _find(own_place, "watch").state == "ok"
    login = own_place.login(make_tenant(own_place.url, "patient"))
    assert _find(own_place, "watch").state == "failed"
    _watch(own_place, 60)
    assert _find(own_place, "watch").state == "ok"
    wrongs = (
        (f'ALTER ROLE "{login.user}" CREATEDB', f'ALTER ROLE "{login.user}" NOCREATEDB'),
        (f'ALTER ROLE "{login.user}" CONNECTION LIMIT -1',
         f'ALTER ROLE "{login.user}" CONNECTION LIMIT 3'),
        (f'GRANT pg_read_all_data TO "{login.user}"',
         f'REVOKE pg_read_all_data FROM "{login.user}"'),
        ("GRANT EXECUTE ON FUNCTION pg_advisory_lock(int, int) TO PUBLIC",
         "REVOKE EXECUTE ON FUNCTION pg_advisory_lock(int, int) FROM PUBLIC"),
        ("GRANT SELECT ON pg_stat_activity TO PUBLIC",
         "REVOKE SELECT ON pg_stat_activity FROM PUBLIC"),
        ("GRANT SELECT ON device TO PUBLIC", "REVOKE SELECT ON device FROM PUBLIC"),
        (f"GRANT TEMPORARY ON DATABASE {own_place.name} TO PUBLIC",
         f"REVOKE TEMPORARY ON DATABASE {own_place.name} FROM PUBLIC"),
    )  # fmt: skip
    with own_place.admin() as conn:
        for wrong, mended in wrongs:
            conn.execute(wrong)
            finding = _find(own_place, "sql logins")
            assert (finding.state, bool(finding.mend)) == ("failed", True), wrong
            conn.execute(mended)
            assert _find(own_place, "sql logins").state == "ok", mended


def test_a_server_that_leaves_something_open_gives_out_no_login(own_place: Server) -> None:
    tenant = make_tenant(own_place.url, "careful")
    with own_place.admin() as conn:
        conn.execute("GRANT EXECUTE ON FUNCTION pg_advisory_lock(int, int) TO PUBLIC")
        with pytest.raises(LoginsUnavailable):
            own_place.login(tenant)
    in_database(own_place.url, migrate.migrate)
    own_place.login(tenant)


def test_a_managed_server_gives_out_no_login(own_place: Server) -> None:
    """Where no superuser ever migrated there are no functions, and everything else works."""
    tenant = make_tenant(own_place.url, "managed")
    with own_place.admin() as conn:
        conn.execute("DROP TRIGGER drop_role ON sql_login")
        conn.execute("DROP FUNCTION create_sql_login, watch_sql_logins, drop_sql_login")

    async def work(conn: db.Connection) -> State:
        account = await accounts.find(conn, str(tenant.account_id))
        where = grafana.Place("localhost", 5432, "disable")
        with pytest.raises(LoginsUnavailable, match="superuser"):
            await grafana.create(conn, account, PLANS["own"], where, 20)
        assert await grafana.watch(conn, 1) == []
        assert not await grafana.drop(conn, tenant.account_id)
        return await grafana.state(conn)

    assert not own_place.run(work, "owner").can_create
    assert _find(own_place, "sql logins").state == "ok"
