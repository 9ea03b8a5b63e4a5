"""Everything ends when the register says: looked at a moment before and a moment after."""

import asyncio
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aged import ROWS, put
from paqett import register
from paqett.local import logs, postgres
from paqett.worker import mail, process
from ports import free_port
from post import Postman
from support import make_tenant

REGISTER = register.load()
MOMENT = timedelta(minutes=10)
DAY = timedelta(days=1)

# kept by the day: the young one is of the last day that is kept
BY_DAY = {"mail_day", "api_usage_day", "usage_warning"}
# of jobs, and of changes that ingest must have heard of: tests of their own
ELSEWHERE = {"procrastinate_jobs", "procrastinate_events", "job_error", "directory_change"}


def run_everything(postman: Postman) -> None:
    async def rounds(app: Any, services: Any) -> None:
        for _, task in process._rounds(app, services.settings):
            await task(services)

    postman.with_queue(rounds)


def test_every_table_with_a_period_is_forgotten_by_it_and_not_before(postman, tenant) -> None:
    kept = {
        name: REGISTER.period(table.kept)
        for name, table in REGISTER.tables.items()
        if table.kept in REGISTER.periods
    }
    assert kept.keys() - ELSEWHERE == ROWS.keys()
    for table in ROWS:
        slack = DAY if table in BY_DAY else MOMENT
        put(postman, tenant, table, postman.now - kept[table] + slack, 1)
        put(postman, tenant, table, postman.now - kept[table] - slack, 2)
    run_everything(postman)
    left = {table: postman.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ROWS}
    assert left == dict.fromkeys(ROWS, 1)
    postman.later(days=2)
    run_everything(postman)
    left = {table: postman.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ROWS}
    assert left == dict.fromkeys(ROWS, 0)


@pytest.mark.parametrize("table", ["notice", "alert", "rejection"])
def test_what_may_hold_readings_does_not_outlive_the_accounts_tier(postman, table: str) -> None:
    assert REGISTER.tables[table].readings
    free, own = make_tenant(postman.url, "f", plan="free"), make_tenant(postman.url, "o")
    # of notices those about devices name values
    text = ROWS[table].replace("usage", "device")
    postman.rows("UPDATE tier SET retention = '3 days' WHERE name = 'free'")
    for tenant in (free, own):
        at = postman.now - timedelta(days=4)
        with psycopg.connect(postman.url, cursor_factory=psycopg.ClientCursor) as conn:
            conn.execute(
                f"INSERT INTO {table} {text}",
                {"a": tenant.account_id, "d": tenant.devices[0], "t": at},
            )
    run_everything(postman)
    assert postman.rows(f"SELECT account_id FROM {table}") == [(own.account_id,)]


def test_a_lasting_alert_forgets_what_was_measured(postman) -> None:
    tenant = make_tenant(postman.url, "f", plan="free")
    for days in (6, 8):
        postman.rows(
            "INSERT INTO alert (account_id, rule_name, kind, device_id, state, since, fired_at,"
            " value, reason) VALUES (%s, 'x', 'threshold', %s, 'firing', %s, %s, 21.5, 'x')",
            tenant.account_id, tenant.devices[0], postman.now, postman.now - days * DAY,
        )  # fmt: skip
    run_everything(postman)
    assert postman.rows("SELECT value FROM alert ORDER BY fired_at DESC") == [(21.5,), (None,)]


def test_addresses_are_forgotten_after_their_time(postman, tenant) -> None:
    """Of live sessions, of devices that are not connected, of secrets and keys."""
    period = REGISTER.period("security")
    shorter = {
        (table.name, column): REGISTER.period(name)
        for table in REGISTER.tables.values()
        for column, name in table.shorter.items()
        if name != "receipt_addresses"  # tests/erasure
    }
    assert set(shorter.values()) == {period}
    for age in (period - MOMENT, period + MOMENT):
        at = postman.now - age
        postman.rows(
            "INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at,"
            " expires_at, ip, agent) VALUES (%s, %s, 'password', %s, %s, %s, %s, '192.0.2.1', 'x')",
            tenant.account_id, str(age).encode(), at, postman.now, at, postman.now + DAY,
        )  # fmt: skip
        postman.rows(
            "INSERT INTO api_key (account_id, name, hint, hash, scopes, last_used_at, last_used_ip)"
            " VALUES (%s, 'k', 'k', %s, '{}', %s, '192.0.2.1')",
            tenant.account_id, str(age).encode(), at,
        )  # fmt: skip
        for connection in ("offline", "online"):
            postman.rows(
                "INSERT INTO device (id, account_id, thing_name, verifier, connection,"
                " connection_since, connection_ip, secret_used_at, secret_used_ip)"
                " VALUES (%s, %s, %s, 'x', %s, %s, '192.0.2.1', %s, '192.0.2.1')",
                f"{connection}{age.days}", tenant.account_id, f"{connection} {age}", connection,
                at, at,
            )  # fmt: skip
    run_everything(postman)

    def left(table: str, column: str, more: str = "") -> int:
        found = postman.rows(f"SELECT count(*) FROM {table} WHERE {column} IS NOT NULL {more}")
        return int(found[0][0])

    for table, column in shorter:
        more = "AND connection <> 'online'" if column == "connection_ip" else ""
        expected = 2 if column == "secret_used_ip" else 1
        assert left(table, column, more) == expected, (table, column)
    # one that is connected still
    assert left("device", "connection_ip", "AND connection = 'online'") == 2


def test_a_failed_job_is_forgotten_with_everything_about_it(postman) -> None:
    period = REGISTER.period("failed_jobs")
    for age, status in ((period - MOMENT, "failed"), (period + MOMENT, "failed"),
                        (period + MOMENT, "aborted"), (period + MOMENT, "todo")):  # fmt: skip
        (row,) = postman.rows(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, scheduled_at)"
            " VALUES ('x', 'x', '{}', 'todo', now() + '1 year') RETURNING id"
        )
        for step in ("doing", status):
            if status != "todo":
                postman.rows(
                    "UPDATE procrastinate_jobs SET status = %s::procrastinate_job_status"
                    " WHERE id = %s",
                    step,
                    row[0],
                )
        postman.rows("UPDATE procrastinate_events SET at = %s WHERE job_id = %s",
                     postman.now - age, row[0])  # fmt: skip
        postman.rows("INSERT INTO job_error VALUES (%s, 'x', %s)", row[0], postman.now - age)
    for _ in range(2):  # an error goes after its job
        run_everything(postman)
    left = "SELECT status::text FROM procrastinate_jobs ORDER BY id"
    assert postman.rows(left) == [("failed",), ("todo",)]
    assert postman.rows("SELECT count(*) FROM job_error") == [(2,)]


def test_what_lasts_for_moments_goes_when_it_says(postman, tenant) -> None:
    postman.rows(
        "INSERT INTO account_token VALUES ('x', %s, 'reset_password', 'x', %s, %s)",
        tenant.account_id, postman.now, postman.now + DAY,
    )  # fmt: skip
    postman.rows(
        "INSERT INTO sign_in_attempt VALUES ('x', 'github', 'x', '/', true, %s, %s, %s)",
        tenant.account_id, postman.now, postman.now + DAY,
    )  # fmt: skip
    postman.rows("INSERT INTO throttle VALUES ('x', '{}', false, %s)", postman.now + DAY)
    postman.rows(
        "INSERT INTO request_window VALUES (%s, %s, 1, 1)", tenant.account_id, postman.now + DAY
    )
    expiring = {name for name, table in REGISTER.tables.items() if table.kept == "expires"}
    tables = expiring - {"stream"}  # by the database's own clock: tests/web/test_streams.py
    assert tables == {"account_token", "sign_in_attempt", "throttle", "request_window"}
    for left in (1, 0):
        run_everything(postman)
        for table in tables:
            assert postman.rows(f"SELECT count(*) FROM {table}") == [(left,)], table
        postman.later(days=1, minutes=1)


def test_mails_in_the_folder_go_after_their_time_and_no_later_than_the_shortest_tier(
    postman,
) -> None:
    postman.folder.mkdir(parents=True)

    def written(days: float) -> Path:
        path = postman.folder / f"{days}.eml"
        path.write_text("x")
        at = (postman.now - timedelta(days=days)).timestamp()
        os.utime(path, (at, at))
        return path

    young, old = written(6.9), written(7.1)
    postman.do(mail.forget_mails)
    assert (young.exists(), old.exists()) == (True, False)
    postman.rows("UPDATE tier SET retention = '2 days' WHERE name = 'free'")
    postman.do(mail.forget_mails)
    assert not young.exists()


def test_log_files_are_kept_by_the_day(tmp_path: Path) -> None:
    today = date(2026, 11, 25)
    now = tmp_path / "api.log"

    def written(text: str, day: date) -> None:
        with now.open("a") as file:
            file.write(text)
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
        os.utime(now, (at, at))

    written("yesterday\n", today - DAY)
    with now.open("ab") as open_file:  # as a process keeps it open
        logs.rotate(tmp_path, today, 30 * DAY)
        assert now.read_text() == ""
        assert (tmp_path / "api-2026-11-24.log").read_text() == "yesterday\n"
        open_file.write(b"today\n")
    assert now.read_text() == "today\n"
    os.utime(now, (datetime(2026, 11, 25, 1, tzinfo=UTC).timestamp(),) * 2)
    for days, there in ((0, True), (28, True), (29, False)):
        logs.rotate(tmp_path, today + days * DAY, 30 * DAY)
        assert (tmp_path / "api-2026-11-24.log").exists() == there
    assert (tmp_path / "api-2026-11-25.log").read_text() == "today\n"


def test_a_new_day_begins_new_log_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(logs, "_CHECK_EVERY_S", 0.001)
    (tmp_path / "api.log").write_text("line\n")
    moment = datetime.now(UTC)

    async def run() -> None:
        stop = asyncio.Event()
        days = iter([moment, moment, moment + DAY])

        def clock() -> datetime:
            found = next(days, None)
            if found is None:
                stop.set()
            return found or moment + DAY

        await logs.watch(tmp_path, 30 * DAY, stop, clock)

    asyncio.run(run())
    assert (tmp_path / f"api-{moment.date()}.log").read_text() == "line\n"
    assert (tmp_path / "api.log").read_text() == ""


def test_what_statements_say_is_not_in_the_servers_log(tmp_path_factory) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="paqett-test-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        cluster = postgres.create(folder / "postgres", free_port(55_400), shared_buffers="32MB")
        server = postgres.start(cluster, folder / "server.log")
        try:
            postgres.wait_ready(cluster.url())
            _provoke(cluster.url())
        finally:
            server.send_signal(2)
            server.wait(30)
        said = (folder / "server.log").read_text()
    assert "ready to accept connections" in said
    assert "ada@example" not in said


def _provoke(url: str) -> None:
    """Errors whose message, detail, context or statement names somebody."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (email text PRIMARY KEY, n int CHECK (n > 0))")
        conn.execute("INSERT INTO t VALUES ('ada@example.org', 1)")
        for text in (
            "INSERT INTO t VALUES ('ada@example.org', 1)",
            "INSERT INTO t VALUES ('ada@example.net', -1)",
            "SELECT 'ada@example.org'::int",
            "SELECT * FROM nowhere WHERE email = 'ada@example.org'",
            "DO $$ BEGIN RAISE WARNING 'ada@example.org'; END $$",
            "DO $$ BEGIN RAISE EXCEPTION 'ada@example.org'; END $$",
        ):
            try:
                conn.execute(text)
            except psycopg.Error:
                continue
        with pytest.raises(psycopg.Error), conn.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write(b"ada@example.com\tx\n")
        with pytest.raises(psycopg.Error):
            conn.execute("SELECT %s::text::int", ("ada@example.org",))
