"""What the register says an erasure takes, the erasure takes."""

import psycopg

import belongings
from paqett import register
from paqett.worker import erasure

# what is neither readings nor a table with an account_id, and the step that takes it
STEPS = {
    "account": "account",
    "directory_change": "account",
    "erasure": "account",
    "procrastinate_jobs": "jobs",
    "procrastinate_events": "jobs",
    "job_error": "jobs",
}
STORES = {
    "database_files": "account",  # the planner's samples; dead rows go with a vacuum
    "timescaledb": "readings",
    "spool": "readings",  # replayed within moments, and then of no known device
    "broker_passwords": "rows",  # the broker writes it anew when devices go
    "broker_state": "broker",
    "broker_server": "broker",
    "exports": "files",
    "mail_files": "files",
    "session_cookie": "rows",
    "stripe": "stripe",
}


def test_every_table_the_register_says_is_erased_is_covered(database_url: str) -> None:
    known = register.load()
    with psycopg.connect(database_url) as conn:
        by_catalog = {row[0] for row in conn.execute("SELECT * FROM account_tables()")}
        tiers = [row[0] for row in conn.execute("SELECT name FROM tier")]
        columns = belongings.tables(conn)
    erased = {
        name
        for table in known.tables.values()
        if table.erased in ("itself", "cascade", "explicit")
        for name in table.names(tiers)
    }
    readings = {f"telemetry_{tier}{form}" for tier in tiers for form in ("", "_text")}
    assert erased == by_catalog | readings | STEPS.keys()
    assert set(STEPS.values()) <= erasure._ACCOUNT.keys()
    # and nothing names an account that the register says is left
    for table in known.tables.values():
        if table.erased in ("period", "nothing"):
            assert "account_id" not in columns[table.name], table.name


def test_every_store_the_register_says_is_erased_has_its_step() -> None:
    erased = {store.name for store in register.load().stores.values() if store.erased == "explicit"}
    assert erased == STORES.keys()
    assert set(STORES.values()) <= erasure._ACCOUNT.keys()
