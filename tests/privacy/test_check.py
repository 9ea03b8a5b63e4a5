"""`paqett privacy check`: it passes where promises are kept, and can fail at each of them."""

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aged import ROWS, put
from paqett import cli, migrate, register
from paqett.audit import report
from paqett.audit.report import Report
from paqett.erasure import tombstones
from paqett.erasure.tombstones import Tombstone
from paqett.worker import mail, privacy, process, upkeep
from post import Postman, plain
from support import Tenant, in_database, make_tenant

REGISTER = register.load()
DAY = timedelta(days=1)
# columns that lead somewhere without the database's holding it, and whether the check looks there
LOOSE = {
    "api_usage_day.key_id": "counters of the account's own; a deleted key's stay with their period",
    "directory_change.account_id": "looked at",
    "directory_change.device_id": "looked at",
    "erasure.account_id": "looked at",
    "erasure.device_id": "of a device that is gone already, until the erasure is done",
    "rejection_hour.device_id": "looked at",
    "telemetry_{tier}.account_id": "looked at, by their series",
    "telemetry_{tier}.series_id": "looked at",
    "telemetry_{tier}_text.account_id": "looked at, by their series",
    "telemetry_{tier}_text.series_id": "looked at",
    "usage_hour.device_id": "names deleted devices on purpose, for its period",
}


def failures(found: Report) -> set[tuple[str, str]]:
    return {(one.check, one.subject) for one in found.findings if not one.passed}


def checked(postman: Postman) -> Report:
    found: Report = postman.do(privacy.check)
    assert found.failed == len([one for one in found.findings if not one.passed])
    assert found.passed == (not found.failed)
    return found


def device_of(tenant: Tenant) -> str:
    return tenant.devices[0]


def readings(postman: Postman, tenant: Tenant, tier: str = "own", days: float = 1) -> int:
    """Some of a new series; its number."""
    (row,) = postman.rows(
        "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, 'number')"
        " RETURNING id",
        tenant.account_id, device_of(tenant), f"m{tier}{days}",
    )  # fmt: skip
    for suffix, value in (("", 1.0), ("_text", "private words")):
        postman.rows(
            f"INSERT INTO telemetry_{tier}{suffix} VALUES (%s, %s, %s, %s)",
            postman.now - days * DAY, tenant.account_id, row[0], value,
        )  # fmt: skip
    return int(row[0])


def test_where_everything_is_kept_it_passes_and_names_nobody(postman, tenant) -> None:
    for number, table in enumerate(ROWS):
        young = postman.now - REGISTER.period(REGISTER.tables[table].kept) + DAY
        put(postman, tenant, table, young, number)
    readings(postman, tenant)
    found = checked(postman)
    assert failures(found) == set()
    said = report.text(found) + json.dumps(report.summary(found))
    for private in ("ada", "example.org", *tenant.devices, "private words", "https://x/"):
        assert private not in said
    assert "Privacy check of" in said
    looked_at = [(one.check, one.subject) for one in found.findings]
    assert len(looked_at) == len(set(looked_at))


def test_everything_with_a_period_is_looked_at(postman) -> None:
    subjects = {one.subject for one in checked(postman).findings}
    tables = {subject.partition(":")[0] for subject in subjects}
    for table in REGISTER.tables.values():
        if table.kept in REGISTER.periods or table.kept in ("expires", "tier"):
            names = set(table.names(["free", "own", "paid"]))
            assert names <= tables or table.name == "telemetry_{tier}_text", table.name
        for column in table.shorter:
            assert any(s.startswith(f"{table.name}: ") and column in s for s in subjects), column
    assert "account: registrations nobody confirmed" in subjects


def test_whatever_outlives_its_period_is_found(postman, tenant) -> None:
    for number, table in enumerate(ROWS):
        kept = REGISTER.period(REGISTER.tables[table].kept)
        slack = 2 * DAY if table in ("mail_day", "api_usage_day", "usage_warning") else DAY
        put(postman, tenant, table, postman.now - kept - slack, number)
    free = make_tenant(postman.url, "free", plan="free")
    for table in ("notice", "alert"):
        with psycopg.connect(postman.url, cursor_factory=psycopg.ClientCursor) as conn:
            conn.execute(
                f"INSERT INTO {table} {ROWS[table].replace('usage', 'device')}",
                {"a": free.account_id, "d": free.devices[0], "t": postman.now - 8 * DAY},
            )
    postman.rows(
        "INSERT INTO alert (account_id, rule_name, kind, device_id, state, since, fired_at, value,"
        " reason) VALUES (%s, 'x', 'threshold', %s, 'firing', %s, %s, 21.5, 'x')",
        free.account_id, free.devices[0], postman.now, postman.now - 8 * DAY,
    )  # fmt: skip
    old = postman.now - 31 * DAY
    postman.rows(
        "INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at,"
        " expires_at, ip) VALUES (%s, 'x', 'password', %s, %s, %s, %s, '192.0.2.1')",
        tenant.account_id, old, old, old, postman.now + DAY,
    )  # fmt: skip
    postman.rows(
        "INSERT INTO api_key (account_id, name, hint, hash, scopes, last_used_at, last_used_ip)"
        " VALUES (%s, 'k', 'k', 'x', '{}', %s, '192.0.2.1')", tenant.account_id, old,
    )  # fmt: skip
    postman.rows(
        "UPDATE device SET connection = 'offline', connection_since = %s, secret_used_at = %s,"
        " connection_ip = '192.0.2.1', secret_used_ip = '192.0.2.1'", old, old,
    )  # fmt: skip
    postman.rows("INSERT INTO account (email, plan, tier, created_at)"
                 " VALUES ('x@example.org', 'own', 'own', %s)", postman.now - 8 * DAY)  # fmt: skip
    hour_ago = postman.now - timedelta(hours=1)
    postman.rows("INSERT INTO account_token VALUES ('x', %s, 'reset_password', 'x', %s, %s)",
                 tenant.account_id, old, hour_ago)  # fmt: skip
    postman.rows("INSERT INTO sign_in_attempt VALUES ('x', 'github', 'x', '/', true, %s, %s, %s)",
                 tenant.account_id, old, hour_ago)  # fmt: skip
    postman.rows("INSERT INTO throttle VALUES ('x', '{}', false, %s)", hour_ago)
    postman.rows("INSERT INTO request_window VALUES (%s, %s, 1, 1)", tenant.account_id, hour_ago)
    postman.rows("INSERT INTO stream (id, account_id, until) VALUES (gen_random_uuid(), %s, %s)",
                 tenant.account_id, hour_ago)  # fmt: skip
    postman.rows("INSERT INTO erasure (asked_by, asked_at, due_at, finished_at, mail_to)"
                 " VALUES ('person', %s, %s, %s, 'x@example.org')",
                 old, old, postman.now - 3 * DAY)  # fmt: skip
    postman.rows("INSERT INTO export (account_id, format, status, created_at, expires_at)"
                 " VALUES (%s, 'csv', 'ready', %s, %s)", tenant.account_id, old, hour_ago,
                 )  # fmt: skip
    postman.rows("INSERT INTO directory_change (account_id, at) VALUES (%s, %s)",
                 tenant.account_id, old)  # fmt: skip
    failed_job(postman, tenant.account_id, old)
    late = {one.subject for one in checked(postman).findings
            if one.check == "periods" and not one.passed}  # fmt: skip
    every = {one.subject for one in checked(postman).findings if one.check == "periods"}
    # of these nothing was made: other tiers' accounts, and files
    assert every - late == {
        "alert: that ended, tier paid", "alert: values of those that last, tier own",
        "alert: values of those that last, tier paid", "log files of past days",
        "mails in the folder", "notice: about devices, tier own",
        "notice: about devices, tier paid", "notice: about security", "rejection: tier free",
        "rejection: tier paid",
    }  # fmt: skip


def failed_job(postman: Postman, account: int, at: Any) -> None:
    (row,) = postman.rows(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status)"
        " VALUES ('x', 'x', jsonb_build_object('account_id', %s::int), 'todo') RETURNING id",
        account,
    )
    for status in ("doing", "failed"):
        postman.rows("UPDATE procrastinate_jobs SET status = %s::procrastinate_job_status"
                     " WHERE id = %s", status, row[0])  # fmt: skip
    postman.rows("UPDATE procrastinate_events SET at = %s WHERE job_id = %s", at, row[0])
    postman.rows("INSERT INTO job_error VALUES (%s, 'x', %s)", row[0], at)


def test_security_notices_have_their_own_period(postman, tenant) -> None:
    postman.rows("INSERT INTO notice (account_id, kind, event, created_at)"
                 " VALUES (%s, 'security', 'x', %s)", tenant.account_id, postman.now - 31 * DAY,
                 )  # fmt: skip
    assert failures(checked(postman)) == {("periods", "notice: about security")}


def test_a_reading_that_outlives_its_tier_is_found(postman) -> None:
    free = make_tenant(postman.url, "free", plan="free")
    readings(postman, free, "free", days=8.05)
    assert failures(checked(postman)) == set()
    readings(postman, free, "free", days=8.2)
    assert failures(checked(postman)) == {("retention", "telemetry_free")}
    # what is on its way to a tier that keeps it longer is not overdue
    postman.rows("UPDATE account SET tier = 'own', moving_from = 'free' WHERE id = %s",
                 free.account_id)  # fmt: skip
    postman.rows("INSERT INTO move VALUES (%s, %s, %s, %s)", free.account_id,
                 postman.now - DAY, postman.now - 9 * DAY, postman.now)  # fmt: skip
    assert failures(checked(postman)) == set()


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("INSERT INTO rejection_hour VALUES ({account}, 'gone', now(), 'x', 1)", "rejection_hour"),
        ("INSERT INTO directory_change (account_id, at) VALUES (99, now() - interval '2 hours')",
         "directory_change"),
        ("INSERT INTO directory_change (account_id, device_id, at)"
         " VALUES ({account}, 'gone', now() - interval '2 hours')", "directory_change"),
        ("INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
         " VALUES ('x', 'x', '{{\"account_id\": 99}}');"
         " UPDATE procrastinate_events SET at = now() - interval '2 days'", "procrastinate_jobs"),
        ("INSERT INTO job_error VALUES (99, 'x', now() - interval '2 hours')", "job_error"),
        ("INSERT INTO erasure (account_id, asked_by, asked_at, due_at)"
         " VALUES (99, 'person', now(), now() + interval '7 days')", "erasure"),
        ("UPDATE account SET closing_at = now()", "account"),
        ("INSERT INTO telemetry_own VALUES (now(), 99, 99, 1)", "telemetry_own"),
        ("INSERT INTO telemetry_own VALUES (now(), 99, 1, 1); DELETE FROM series",
         "telemetry_own"),
        ("INSERT INTO telemetry_paid_text VALUES (now(), 99, 99, 'x')", "telemetry_paid_text"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_found(postman, tenant, change: str, subject: str) -> None:
    for statement in change.format(account=tenant.account_id).split(";"):
        postman.rows(statement)
    assert failures(checked(postman)) == {("orphans", subject)}


def test_what_a_deletion_is_still_carrying_away_is_no_orphan(postman, tenant) -> None:
    series = readings(postman, tenant)
    device = device_of(tenant)
    for table in ("rejection_hour", "usage_hour"):
        put(postman, tenant, table, postman.now, 1)
    postman.rows("DELETE FROM device WHERE id = %s", device)
    assert failures(checked(postman)) == {
        ("orphans", "telemetry_own"), ("orphans", "telemetry_own_text"),
        ("orphans", "rejection_hour"),
    }  # fmt: skip
    postman.rows(
        "INSERT INTO erasure (account_id, device_id, series_ids, asked_by, asked_at, due_at)"
        " VALUES (%s, %s, %s, 'person', now(), now())", tenant.account_id, device, [series],
    )  # fmt: skip
    assert failures(checked(postman)) == set()
    # a metric's readings go by a job that names its series
    postman.rows("UPDATE erasure SET series_ids = '{}'")
    postman.rows("INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES"
                 " ('x', 'erase_series', jsonb_build_object('series_ids', %s::int[]))", [series],
                 )  # fmt: skip
    assert failures(checked(postman)) == set()


def test_columns_the_database_does_not_hold_are_known(database_url) -> None:
    text = """
        SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND a.attname IN ('account_id', 'device_id', 'series_id', 'key_id', 'session_id',
                            'channel_id', 'notice_id', 'rule_id', 'export_id')
          AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid
                          AND k.contype = 'f' AND a.attnum = ANY (k.conkey))"""
    with psycopg.connect(database_url) as conn:
        loose = {f"{table}.{column}" for table, column in conn.execute(text).fetchall()}
    tiers = ("free", "own", "paid")
    assert loose == {name.replace("{tier}", tier) for name in LOOSE for tier in tiers}


def test_files_that_belong_to_no_export_are_found(postman, tenant) -> None:
    folder = postman.settings.export_dir
    folder.mkdir(parents=True)
    (row,) = postman.rows(
        "INSERT INTO export (account_id, format, status, created_at, expires_at)"
        " VALUES (%s, 'csv', 'ready', now(), %s) RETURNING id",
        tenant.account_id, postman.now + DAY,
    )  # fmt: skip
    archive = folder / f"{tenant.account_id}-{row[0]}.zip"
    archive.write_text("x")
    assert failures(checked(postman)) == set()
    for strange in (f"{tenant.account_id}-99.zip", "notes.txt"):
        (folder / strange).write_text("x")
        assert failures(checked(postman)) == {("exports", "export folder")}
        (folder / strange).unlink()
    draft = folder / f"{tenant.account_id}-{row[0]}.x.part"
    draft.write_text("x")  # broken off just now
    assert failures(checked(postman)) == set()
    hour_ago = (postman.now - timedelta(hours=1)).timestamp()
    os.utime(draft, (hour_ago, hour_ago))
    assert failures(checked(postman)) == {("exports", "export folder")}
    draft.unlink()
    # one whose time has just ended goes within a round, and then it must be gone
    postman.rows("UPDATE export SET status = 'expired', expires_at = %s", postman.now)
    assert failures(checked(postman)) == set()
    postman.later(minutes=30)
    assert failures(checked(postman)) == {("exports", "export folder")}
    # those of an account that is being erased are being removed
    postman.rows("INSERT INTO erasure (account_id, asked_by, asked_at, due_at, begun_at)"
                 " VALUES (%s, 'person', %s, %s, %s)", tenant.account_id, *[postman.now] * 3,
                 )  # fmt: skip
    postman.rows("UPDATE account SET closing_at = now(), erasing = true")
    assert failures(checked(postman)) == set()


def test_files_that_outlive_their_period_and_strange_ones_are_found(postman) -> None:
    data = postman.settings.data_dir
    for name, days, subject in (
        ("mail/a.eml", 8, ("periods", "mails in the folder")),
        ("log/api-2026-01-01.log", 33, ("periods", "log files of past days")),
        ("ada-lovelace.csv", 0, ("register", "data folder")),
        ("ada/lovelace.csv", 0, ("register", "data folder")),
        ("ingest/spool/any/where", 0, None),
    ):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        at = (postman.now - days * DAY).timestamp()
        os.utime(path, (at, at))
        found = checked(postman)
        assert failures(found) == (set() if subject is None else {subject})
        assert "lovelace" not in report.text(found)
        path.unlink()


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("CREATE TABLE diary (account_id int)", "database"),
        ("ALTER TABLE account ADD phone text", "database"),
        ("DROP VIEW admin.sizes", "database"),
    ],
)
def test_a_database_that_is_not_what_the_register_says_is_found(
    postman, change: str, subject: str
) -> None:
    postman.rows(change)
    assert failures(checked(postman)) == {("register", subject)}


def test_deletions_that_are_late_are_found(postman, tenant) -> None:
    postman.rows("UPDATE account SET closing_at = now()")
    postman.rows("INSERT INTO erasure (account_id, asked_by, asked_at, due_at)"
                 " VALUES (%s, 'person', now(), %s)", tenant.account_id, postman.now)  # fmt: skip
    assert failures(checked(postman)) == set()
    postman.later(hours=2)
    assert failures(checked(postman)) == {("erasures", "deletions")}
    postman.rows("UPDATE erasure SET begun_at = %s", postman.now)
    assert failures(checked(postman)) == set()
    postman.later(days=1, hours=1)
    assert failures(checked(postman)) == {("erasures", "deletions")}


def test_the_file_of_erasures_is_readable_and_whole(postman) -> None:
    folder = postman.settings.backup_dir
    postman.rows("INSERT INTO erasure (asked_by, asked_at, due_at, finished_at)"
                 " VALUES ('person', now(), now(), now())")  # fmt: skip
    assert failures(checked(postman)) == {("erasures", "erasures.ndjson")}
    tombstones.append(folder, Tombstone(postman.now, 7, postman.now))
    assert failures(checked(postman)) == set()
    with (folder / "erasures.ndjson").open("a") as file:
        file.write('{"at": "yesterday", "who": "ada"}\n')
    found = checked(postman)
    assert failures(found) == {("erasures", "erasures.ndjson")}
    assert "ada" not in report.text(found)


def test_the_worker_checks_every_week_keeps_the_report_and_tells_the_operator(
    postman, tenant
) -> None:
    postman.environ["PAQETT_PAQETT__OPERATOR_EMAIL"] = "operator@example.org"

    def week(days: float) -> list[tuple[Any, ...]]:
        postman.later(days=days)
        for _ in range(2):  # ordered once
            postman.do(privacy.order_check)
        waiting = postman.rows("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'")
        postman.work()
        assert postman.rows("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'") == [
            (0,)
        ]
        return waiting

    assert week(0) == [(1,)]
    assert week(6) == [(0,)]
    postman.rows("INSERT INTO telemetry_own VALUES (now(), 99, 99, 1)")
    assert week(1.1) == [(1,)]
    assert postman.rows("SELECT passed FROM privacy_check ORDER BY id") == [(True,), (False,)]
    assert postman.rows(
        "SELECT f ->> 'subject' FROM privacy_check, jsonb_array_elements(report -> 'findings') AS f"
        " WHERE f ->> 'passed' = 'false'"
    ) == [("telemetry_own",)]
    postman.do(mail.report_failures)
    (sent,) = postman.written()
    assert sent["To"] == "operator@example.org"
    assert "check_privacy" in plain(sent)
    assert "orphans (1)" in plain(sent).replace("\n", " ")
    # a week later it is looked at again, and all is well
    postman.rows("DELETE FROM telemetry_own")
    postman.later(days=7)
    postman.do(mail.forget_mails)
    assert week(0.1) == [(1,)]
    assert postman.rows("SELECT passed FROM privacy_check ORDER BY id") == [
        (True,), (False,), (True,),
    ]  # fmt: skip


def test_a_worker_that_has_run_for_a_while_checks(postman, monkeypatch) -> None:
    monkeypatch.setattr(process, "_CATCH_UP_S", 0.0)

    async def run() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(process.run(postman.settings, stop))
        async with asyncio.timeout(60):
            while not working.done() and not postman.rows("SELECT FROM privacy_check"):  # noqa: ASYNC110 - a row says when
                await asyncio.sleep(0.1)
        stop.set()
        await working

    asyncio.run(run())
    assert postman.rows("SELECT passed FROM privacy_check") == [(True,)]


def test_the_command_prints_a_report_and_fails_where_something_did(
    postman, monkeypatch, capsys
) -> None:
    for name, value in {**postman.environ, "PAQETT_DATABASE__URL": postman.url}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["privacy", "check"]) == 0
    printed = capsys.readouterr().out
    assert ": passed, 0 of" in printed
    assert "  passed  session: ip and agent: there is none\n" in printed
    postman.rows("UPDATE tier SET retention = '1 day' WHERE name = 'free'")
    postman.rows("CREATE TABLE diary (account_id int)")
    assert cli.main(["privacy", "check"]) == 1
    assert "  FAILED  database: the table diary is not in the register\n" in capsys.readouterr().out
    assert cli.main(["privacy", "check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["failed"]) == (False, 1)
    (failed,) = [one for one in found["findings"] if not one["passed"]]
    assert failed["mend"].startswith("run `paqett migrate`")


def test_the_workers_role_may_look_at_all_of_it(bare_database_url, tmp_path: Path) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE \"{name}_worker\" PASSWORD 'x'")
    superuser = Postman(bare_database_url, tmp_path)
    readings(superuser, make_tenant(bare_database_url, "ada"))
    host = bare_database_url.partition("@")[2]
    worker = Postman(f"postgresql://{name}_worker:x@{host}", tmp_path)
    assert failures(checked(worker)) == set()
    worker.do(privacy.order_check)
    worker.work()
    assert superuser.rows("SELECT passed FROM privacy_check") == [(True,)]
    with psycopg.connect(bare_database_url) as conn:
        conn.execute(f'SET ROLE "{name}_api"')
        assert conn.execute("SELECT count(*) FROM privacy_check").fetchone() == (1,)


def test_jobs_of_a_registration_nobody_confirmed_go_with_it(postman) -> None:
    (row,) = postman.rows("INSERT INTO account (email, plan, tier, created_at) VALUES"
                          " ('x@example.org', 'own', 'own', %s) RETURNING id",
                          postman.now - 8 * DAY)  # fmt: skip
    failed_job(postman, row[0], postman.now - 3 * DAY)
    postman.do(upkeep.erase_unconfirmed)
    assert postman.rows("SELECT count(*) FROM procrastinate_jobs") == [(0,)]
    assert postman.rows("SELECT count(*) FROM job_error") == [(0,)]
    assert failures(checked(postman)) == set()
