"""Migrations run once, converge, and leave each role the least it needs."""

import uuid

import psycopg
import pytest
from psycopg import sql

from community_server import run_policies
from paqett import cli, doctor, migrate, roles
from paqett.app import utc_now
from paqett.db import Connection
from paqett.errors import ConfigurationError, SchemaOutdatedError
from support import at, drop, in_database, with_url


def test_a_second_run_changes_nothing(bare_database_url: str) -> None:
    assert in_database(bare_database_url, migrate.migrate)
    assert in_database(bare_database_url, migrate.migrate) == []


def test_a_process_refuses_a_database_without_schema(bare_database_url: str) -> None:
    with pytest.raises(SchemaOutdatedError, match="paqett migrate"):
        in_database(bare_database_url, migrate.require_current)


def test_a_process_refuses_an_older_schema(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("DELETE FROM schema_migration WHERE name LIKE '0001%'")
    with pytest.raises(SchemaOutdatedError, match="0001_foundation"):
        in_database(database_url, migrate.require_current)


def test_an_edited_migration_is_noticed(bare_database_url: str) -> None:
    in_database(bare_database_url, migrate.migrate)
    with psycopg.connect(bare_database_url) as conn:
        conn.execute("UPDATE schema_migration SET sha256 = 'x' WHERE name LIKE '0001%'")
    with pytest.raises(ConfigurationError, match="edited"):
        in_database(bare_database_url, migrate.migrate)


def test_a_database_of_another_encoding_is_refused_with_what_to_do(server_url: str) -> None:
    name = f"paqett_ascii_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        made = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        conn.execute(sql.SQL(made).format(sql.Identifier(name)))
    try:
        with pytest.raises(ConfigurationError, match=r"SQL_ASCII.*--encoding=UTF8"):
            in_database(at(server_url, name), migrate.migrate)
    finally:
        drop(server_url, name)


def test_the_doctor_finds_nothing_wrong_after_migrate(bare_database_url: str) -> None:
    async def examine(conn: Connection) -> list[doctor.Finding]:
        await migrate.migrate(conn)
        return await doctor.examine(conn, utc_now())

    findings = in_database(bare_database_url, examine)
    assert {finding.state for finding in findings} == {"ok"}
    assert [f.subject for f in findings] == [
        "edition", "revokes", "jobs", "sql logins", "watch", "tier free", "tier own", "tier paid",
    ]  # fmt: skip


@pytest.fixture
def stranger_url(bare_database_url: str, server_url: str) -> str:
    """A login that may connect and nothing else."""
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        conn.execute("DROP ROLE IF EXISTS paqett_stranger")
        conn.execute("CREATE ROLE paqett_stranger LOGIN PASSWORD 'stranger'")
        conn.execute(f"GRANT CONNECT ON DATABASE {name} TO paqett_stranger")
        conn.execute("INSERT INTO telemetry_own VALUES (now(), 1, 1, 1)")
    host = at(server_url, name).rpartition("@")[2]
    return f"postgresql://paqett_stranger:stranger@{host}"


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM telemetry_own",
        "SELECT * FROM _timescaledb_internal._hyper_1_1_chunk",
        "SELECT * FROM account",
        "SELECT * FROM timescaledb_information.chunks",
        "SELECT _timescaledb_functions.drop_chunk(oid) FROM pg_class WHERE relname LIKE '_hyper%'",
        "SELECT apply_retention('own')",
        "CREATE TABLE mine (id int)",
        "SET ROLE paqett_owner",
    ],
)
def test_another_sql_login_gets_nothing(stranger_url: str, attack: str) -> None:
    with psycopg.connect(stranger_url) as conn, pytest.raises(psycopg.Error):
        conn.execute(attack)


def test_ingest_may_write_readings_and_read_no_key_verifier_or_address(
    bare_database_url: str,
) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url) as conn:
        conn.execute(f'SET ROLE "{name}_ingest"')
        conn.execute("INSERT INTO telemetry_own VALUES (now(), 1, 1, 1)")
        conn.execute("SELECT id, account_id, clock FROM device")
    for secret in (
        "SELECT * FROM api_key",
        "SELECT verifier FROM device",
        "SELECT email FROM account",
    ):
        with psycopg.connect(bare_database_url) as conn:
            conn.execute(f'SET ROLE "{name}_ingest"')
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(secret)


def test_the_policy_of_each_tier_or_the_worker_drops_expired_chunks_and_no_others(
    bare_database_url: str,
) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        for tier, days in (("free", 7), ("paid", 90), ("own", 365)):
            for age in (days + 2, days - 1):
                conn.execute(
                    f"INSERT INTO telemetry_{tier}"
                    f" VALUES (now() - make_interval(days => {age}), 1, 1, 1)"
                )
            ran = run_policies(conn, "policy_retention", tier)
            edition = conn.execute("SELECT retention_by FROM tier WHERE name = %s", (tier,))
            assert (ran, edition.fetchone()) in [(2, ("timescaledb",)), (0, ("worker",))]
            if not ran:
                conn.execute(f'SET ROLE "{name}_worker"')
                conn.execute("SELECT apply_retention(%s)", (tier,))
                conn.execute("RESET ROLE")
            left = conn.execute(
                f"SELECT extract(day FROM now() - time)::int FROM telemetry_{tier}"
            ).fetchall()
            assert left == [(days - 1,)]


def test_the_doctor_tells_how_much_waits_in_the_spool(tmp_path) -> None:
    settings = with_url("", PAQETT_PAQETT__DATA_DIR=str(tmp_path))
    folder = tmp_path / "ingest" / "spool"
    assert doctor.examine_machine(settings)[0].detail.startswith("none at")
    folder.mkdir(parents=True)
    assert doctor.examine_machine(settings)[0].state == "ok"
    (folder / "1.spool").write_bytes(bytes(5000))
    found = doctor.examine_machine(settings)[0]
    assert (found.state, "5,000 of" in found.detail) == ("warning", True)
    full = with_url(
        "", PAQETT_PAQETT__DATA_DIR=str(tmp_path), PAQETT_INGEST__SPOOL_MAX_BYTES="5000"
    )
    assert doctor.examine_machine(full)[0].state == "failed"


def test_migrate_gives_the_processes_roles_the_passwords_of_the_settings(
    bare_database_url: str, server_url: str, monkeypatch
) -> None:
    name = bare_database_url.rpartition("/")[2]
    host = at(server_url, name).rpartition("@")[2]
    monkeypatch.setenv("PAQETT_DATABASE__URL", bare_database_url)
    monkeypatch.setenv("PAQETT_ROLES__API_PASSWORD", "one'two")
    assert cli.main(["migrate"]) == 0
    with psycopg.connect(f"postgresql://{name}_api:one'two@{host}") as conn:
        assert conn.execute("SELECT current_user").fetchone() == (f"{name}_api",)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://{name}_worker:@{host}")
    monkeypatch.setenv("PAQETT_ROLES__API_PASSWORD", "")
    assert cli.main(["migrate"]) == 0, "an empty one leaves it as it is"
    psycopg.connect(f"postgresql://{name}_api:one'two@{host}").close()


def test_who_may_not_set_passwords_is_told(bare_database_url: str) -> None:
    async def as_owner(conn: Connection) -> None:
        await migrate.migrate(conn)
        await conn.execute(f'SET ROLE "{conn.info.dbname}_owner"')
        with pytest.raises(ConfigurationError, match="superuser"):
            await roles.set_passwords(conn, {"api": "x"})
        await conn.execute("RESET ROLE")
        with pytest.raises(ConfigurationError, match="_nobody"):
            await roles.set_passwords(conn, {"nobody": "x"})

    in_database(bare_database_url, as_owner)
