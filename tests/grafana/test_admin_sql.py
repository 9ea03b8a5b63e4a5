"""The operator's schema: every example of its page runs as the read-only role, and is right."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from door import Door, message
from grafana_support import SECRETS, Server
from paqett import cli, log
from support import Tenant, make_tenant

PAGE = (Path(__file__).parents[2] / "docs" / "admin-sql.md").read_text()
EXAMPLES = {
    f"{title} {number}": block
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(re.findall(r"```sql\n(.*?)```", body, re.DOTALL))
}
VIEWS = (
    "accounts", "usage", "ingest_lag", "rejections", "retention", "job_failures", "chunks", "sizes",
    "sql_logins",
)  # fmt: skip


@pytest.fixture(scope="module")
def busy(place: Server, victim: Tenant) -> Tenant:
    """An account that sends, is refused, moves, fails and runs away: every view has a row."""
    tenant = make_tenant(place.url, "busy", plan="free")
    place.login(tenant, "own")
    door = Door(place.settings)
    door.send(message(tenant.devices[0], {"t": 1, "u": 2}), message(tenant.devices[1], {"t": 1}))
    door.send(message(tenant.devices[1], b"{"))
    with place.admin() as conn:
        conn.execute(
            "UPDATE account SET moving_from = 'paid', tier_due_at = now() WHERE id = %s",
            (tenant.account_id,),
        )
        conn.execute("UPDATE sql_login SET strikes = 2, struck_at = now()")
        conn.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status, attempts, args)"
            " VALUES ('default', 'send_mail', 'failed', 20, '{\"to\": \"top-secret\"}')"
        )
        conn.execute(
            "UPDATE usage_hour SET last_fresh_at = now() - interval '1 hour 30 minutes',"
            " hour = date_trunc('hour', now()) - interval '2 hours' WHERE account_id = %s",
            (tenant.account_id,),
        )
    return tenant


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_of_the_page_runs_and_shows_something(
    place: Server, busy: Tenant, title: str
) -> None:
    with place.as_role("admin") as conn:
        rows = conn.execute(EXAMPLES[title].encode()).fetchall()
    assert rows
    assert "top-secret" not in str(rows)


def test_the_page_names_every_view_and_every_view_is_there(place: Server) -> None:
    with place.admin() as conn:
        there = conn.execute(
            "SELECT table_name FROM information_schema.views WHERE table_schema = 'admin'"
        ).fetchall()
    assert {row[0] for row in there} == set(VIEWS)
    for view in VIEWS:
        assert f"`{view}`" in PAGE


def test_usage_equals_what_is_stored(place: Server, busy: Tenant) -> None:
    with place.as_role("admin") as conn:
        row = conn.execute(
            "SELECT messages, points, rejected FROM admin.usage WHERE account_id = %s",
            (busy.account_id,),
        ).fetchall()
        largest = conn.execute(
            "SELECT device_id, points, series FROM admin.largest_devices('1 day', 100)"
            " WHERE account_id = %s",
            (busy.account_id,),
        ).fetchall()
        lag = conn.execute(
            "SELECT extract(epoch FROM lag)::int / 60, devices FROM admin.ingest_lag"
            " WHERE account_id = %s",
            (busy.account_id,),
        ).fetchone()
    assert tuple(sum(part) for part in zip(*row, strict=True)) == (3, 3, 1)
    assert sorted(largest) == sorted([(busy.devices[0], 2, 2), (busy.devices[1], 1, 1)])
    assert lag == (90, 0)


def test_an_overdue_tier_is_told(place: Server, busy: Tenant) -> None:
    def told(conn: psycopg.Connection) -> tuple[Any, ...]:
        row = conn.execute("SELECT overdue FROM admin.retention WHERE tier = 'paid'").fetchone()
        assert row is not None
        return row

    with place.admin() as conn, place.as_role("admin") as asking:
        conn.execute("INSERT INTO telemetry_paid VALUES (now() - interval '91 days', 1, 1, 1)")
        assert told(asking) == (False,)
        conn.execute("INSERT INTO telemetry_paid VALUES (now() - interval '92 days', 1, 1, 1)")
        assert told(asking) == (True,)
        conn.execute("TRUNCATE telemetry_paid")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM public.telemetry_own",
        "SELECT * FROM public.telemetry_own_text",
        "SELECT * FROM public.account",
        "SELECT * FROM public.device",
        "SELECT * FROM public.api_key",
        "SELECT args FROM public.procrastinate_jobs",
        "SELECT payload FROM public.rejection",
        "SELECT * FROM grafana.telemetry",
        "SELECT public.apply_retention('own')",
        "SELECT public.create_sql_login(1, 'x', 1)",
        "CREATE TABLE admin.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "DELETE FROM admin.accounts",
        "SELECT admin.oldest_reading('own; DROP TABLE account')",
    ],
)
def test_the_operators_role_reads_no_reading_and_writes_nothing(
    place: Server, busy: Tenant, statement: str
) -> None:
    with (
        place.as_role("admin") as conn,
        pytest.raises(
            (
                errors.InsufficientPrivilege,
                errors.ObjectNotInPrerequisiteState,
                errors.RaiseException,
            )
        ),
    ):
        conn.execute(statement.encode())


def test_no_view_of_the_operators_shows_a_reading(place: Server, busy: Tenant) -> None:
    with place.as_role("admin") as conn:
        for view in VIEWS:
            shown = str(conn.execute(f"SELECT * FROM admin.{view}").fetchall())
            for secret in set(SECRETS) - {"victim"}:  # his address and his device's name are known
                assert secret not in shown


def _printed(
    place: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str
) -> Any:
    monkeypatch.setenv("PAQETT_DATABASE__URL", place.url)
    # it would keep this test's own standard error for the tests after it
    monkeypatch.setattr(log, "configure", lambda *_: None)
    assert cli.main(["admin", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_says_the_same(place, busy, capsys, monkeypatch) -> None:
    def printed(*argv: str) -> Any:
        return _printed(place, capsys, monkeypatch, *argv)

    used = {row["account_id"]: row for row in printed("usage")}
    assert (used[busy.account_id]["points"], used[busy.account_id]["rejected"]) == (3, 1)
    assert printed("usage", str(busy.account_id))["plan"] == "free"
    tiers = {row["tier"]: row for row in printed("retention")}
    assert {name: row["retention_days"] for name, row in tiers.items()} == {
        "free": 7, "own": 365, "paid": 90,
    }  # fmt: skip
    assert tiers["own"]["oldest_reading"] is not None
    assert printed("top", "--limit", "1", "--days", "1")[0]["points"] == 2
    tables = printed("top", "--tables", "--limit", "3")
    assert len(tables) == 3
    assert tables[0]["bytes"] >= tables[1]["bytes"]


@pytest.mark.parametrize("argv", [("--limit", "0"), ("--days", "x"), ("--limit", "-1")])
def test_a_wrong_number_is_refused(argv) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["admin", "top", *argv])
    assert stopped.value.code == 2
