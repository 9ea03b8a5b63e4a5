"""Each process may do what its queries about alerts need, and the API reads no webhook's secret."""

import re

import psycopg
import pytest

from paqett import migrate, sqlfiles
from support import in_database

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_WORKER = {
    "delivery_to_send", "note_attempt", "note_channel_success", "note_channel_failure",
    "fail_waiting_deliveries", "unscoped_forget_deliveries",
}  # fmt: skip
NEEDED = [
    *(("ingest", query.name) for query in sqlfiles.queries().values() if query.file == "judge.sql"),
    *(("api", query.name) for query in sqlfiles.queries().values() if query.file == "judge.sql"),
    *(("api", query.name) for query in sqlfiles.queries().values() if query.file == "alerts.sql"),
    *(
        ("worker", query.name)
        for query in sqlfiles.queries().values()
        if query.file == "alert_timers.sql"
    ),
    *(
        ("worker" if query.name in _WORKER else "api", query.name)
        for query in sqlfiles.queries().values()
        if query.file == "channels.sql"
    ),
    *(("worker", name) for name in ("lock_alert_accounts", "bump_alert_versions", "create_notice")),
    *(("worker", name) for name in ("create_deliveries", "count_mail", "claim_mail_day")),
    *(("worker", name) for name in ("note_admission", "held_notices", "drop_pending_alerts")),
    *(("worker", name) for name in ("unscoped_forget_mail_days", "unscoped_open_mail_days")),
]


@pytest.fixture(scope="module")
def migrated(server_url: str):  # type: ignore[no-untyped-def]
    import uuid

    from support import at, create, drop

    name = f"paqett_roles_{uuid.uuid4().hex[:8]}"
    create(server_url, name)
    in_database(at(server_url, name), migrate.migrate)
    with psycopg.connect(at(server_url, name), autocommit=True) as conn:
        yield conn, name
    drop(server_url, name)


def _numbered(text: str) -> tuple[str, int]:
    for name in ("tier", "tier_text", "other", "other_text"):
        text = text.replace(f"{{{name}}}", f"telemetry_own{'_text' if 'text' in name else ''}")
    seen: dict[str, int] = {}
    text = _PLACEHOLDER.sub(lambda m: f"${seen.setdefault(m[1], len(seen) + 1)}", text)
    return text.replace("%%", "%"), len(seen)


@pytest.mark.parametrize(("role", "name"), NEEDED)
def test_a_process_may_run_its_queries(migrated, role: str, name: str) -> None:
    conn, database = migrated
    text, count = _numbered(sqlfiles.query(name))
    conn.execute(f"PREPARE it AS {text}")
    try:
        conn.execute(f'SET ROLE "{database}_{role}"')
        nothing = f"({', '.join(['NULL'] * count)})" if count else ""
        conn.execute(f"EXPLAIN EXECUTE it{nothing}")
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DEALLOCATE it")


@pytest.mark.parametrize("role", ["api", "ingest"])
def test_no_other_process_reads_a_webhooks_secret(migrated, role: str) -> None:
    conn, database = migrated
    conn.execute(f'SET ROLE "{database}_{role}"')
    try:
        for column in ("secret", "old_secret"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT {column} FROM channel")
    finally:
        conn.execute("RESET ROLE")
