"""Another account reads nothing through an SQL login, and stops nothing."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from grafana_support import SECRETS, Server, signed_in
from paqett.grafana import Login
from support import Tenant

HYPER = "_timescaledb_internal._hyper_"
DENIED = (
    errors.InsufficientPrivilege,
    errors.ObjectNotInPrerequisiteState,  # a view that nobody can write through
    errors.UndefinedFile,
    errors.UndefinedFunction,
    errors.ReadOnlySqlTransaction,
    errors.InvalidSchemaName,
)

REFUSED = {
    "a tier's table": "SELECT * FROM public.telemetry_own",
    "a tier's table of texts": "SELECT * FROM public.telemetry_own_text",
    "accounts": "SELECT * FROM public.account",
    "devices and their verifiers": "SELECT verifier FROM public.device",
    "the series": "SELECT * FROM public.series",
    "keys": "SELECT * FROM public.api_key",
    "who has logins": "SELECT * FROM public.sql_login",
    "examples of refusals": "SELECT payload FROM public.rejection",
    "jobs": "SELECT * FROM public.procrastinate_jobs",
    "the operator's views": "SELECT * FROM admin.usage",
    "the operator's functions": "SELECT * FROM admin.largest_devices()",
    "what the views are made of": "SELECT * FROM grafana_inside.my_series()",
    "the oracle for mixed series": "SELECT grafana_inside.has_number(1, now())",
    "statistics": "SELECT * FROM pg_stats",
    "statistics as stored": "SELECT stavalues1 FROM pg_statistic",
    "how many rows a chunk has": "SELECT relname, reltuples FROM pg_class",
    "how many rows a chunk has, by the whole row": "SELECT c FROM pg_class AS c",
    "sizes": "SELECT pg_total_relation_size('public.telemetry_own')",
    "sizes of chunks": "SELECT pg_relation_size(oid) FROM pg_class WHERE relname LIKE '_hyper%'",
    "the database's size": "SELECT pg_database_size(current_database())",
    "others' sessions": "SELECT usename, query FROM pg_stat_activity",
    "others' sessions by function": "SELECT * FROM pg_stat_get_activity(NULL)",
    "counts of writes": "SELECT * FROM pg_stat_user_tables",
    "counts by function": "SELECT pg_stat_get_live_tuples('public.series'::regclass)",
    "locks": "SELECT * FROM pg_locks",
    "locks by function": "SELECT * FROM pg_lock_status()",
    "the names of logins": "SELECT rolname FROM pg_roles",
    "the names of users": "SELECT usename FROM pg_user",
    "passwords": "SELECT * FROM pg_authid",
    "passwords by view": "SELECT * FROM pg_shadow",
    "memberships": "SELECT * FROM pg_auth_members",
    "others' settings": "SELECT * FROM pg_db_role_setting",
    "chunks": "SELECT * FROM timescaledb_information.chunks",
    "hypertables": "SELECT * FROM timescaledb_information.hypertables",
    "job statistics": "SELECT * FROM timescaledb_information.job_stats",
    "the extension's catalog": "SELECT * FROM _timescaledb_catalog.chunk",
    "the extension's jobs": "SELECT * FROM _timescaledb_config.bgw_job",
    "the extension's counts": "SELECT * FROM _timescaledb_internal.bgw_job_stat",
    "who depends on whom": "SELECT * FROM pg_shdepend",
    "how many chunks there were": "SELECT last_value FROM _timescaledb_catalog.chunk_id_seq",
    "show_chunks": "SELECT public.show_chunks('public.telemetry_own')",
    "drop_chunks": "SELECT public.drop_chunks('public.telemetry_own', now())",
    "hypertable_size": "SELECT public.hypertable_size('public.telemetry_own')",
    "approximate_row_count": "SELECT public.approximate_row_count('public.telemetry_own')",
    "the internal drop_chunk": "SELECT _timescaledb_functions.drop_chunk(oid) FROM pg_class"
    " WHERE relname LIKE '_hyper%chunk'",
    "another internal routine": "SELECT _timescaledb_functions.freeze_chunk(oid) FROM pg_class"
    " WHERE relname LIKE '_hyper%chunk'",
    "a job of its own": "SELECT public.add_job('pg_sleep', '1 h')",
    "another job's schedule": "SELECT public.alter_job(1000, scheduled => false)",
    "running a job": "CALL public.run_job(1000)",
    "ending a job": "SELECT public.delete_job(1000)",
    "a policy": "SELECT public.add_retention_policy('public.telemetry_own', interval '1 s')",
    "no policy": "SELECT public.remove_retention_policy('public.telemetry_own')",
    "packing": "SELECT public.compress_chunk(oid) FROM pg_class WHERE relname LIKE '_hyper%chunk'",
    "packing by name": "SELECT public.compress_chunk('public.telemetry_own')",
    "unpacking by name": "SELECT public.decompress_chunk('public.telemetry_own')",
    "a policy of packing": "SELECT public.add_compression_policy('public.telemetry_own',"
    " interval '1 s')",
    "refreshing": "CALL public.refresh_continuous_aggregate('public.telemetry_own', NULL, NULL)",
    "no policy of packing": "SELECT public.remove_compression_policy('public.telemetry_own')",
    "a hypertable": "SELECT public.create_hypertable('public.account', 'created_at')",
    "a move's policies": "SELECT public.settle_retention('free')",
    "our retention": "SELECT public.apply_retention('own')",
    "a login of its own making": "SELECT public.create_sql_login(1, 'x', 1)",
    "the watch": "SELECT * FROM public.watch_sql_logins(0)",
    "being another role": "SET ROLE {name}_owner",
    "being the api": "SET ROLE {name}_api",
    "being the victim": "SET SESSION AUTHORIZATION {victim}",
    "being the superuser": "SET SESSION AUTHORIZATION postgres",
    "more for itself": "ALTER ROLE {thief} CREATEROLE",
    "more connections": "ALTER ROLE {thief} CONNECTION LIMIT 100",
    "a new role": "CREATE ROLE helper",
    "the group's name for others": "GRANT {name}_grafana TO {victim}",
    "a table": "CREATE TABLE grafana.mine (id int)",
    "a table in public": "CREATE TABLE public.mine (id int)",
    "a temporary table": "CREATE TEMPORARY TABLE mine (id int)",
    "a temporary view": "CREATE TEMPORARY VIEW mine AS SELECT 1",
    "a temporary function": "CREATE FUNCTION pg_temp.leak(float8) RETURNS bool LANGUAGE sql"
    " AS 'SELECT true' COST 0.0000001",
    "a function": "CREATE FUNCTION grafana.leak(float8) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "a schema": "CREATE SCHEMA mine",
    "an extension": "CREATE EXTENSION dblink",
    "a foreign server": "CREATE EXTENSION postgres_fdw",
    "dblink": "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t (a int)",
    "a program": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "a file to write": "COPY (SELECT 1) TO '/tmp/thief'",
    "a file to read": "CREATE TABLE t (a text); COPY t FROM '/etc/passwd'",
    "a tier by COPY": "COPY public.telemetry_own TO STDOUT",
    "pg_read_file": "SELECT pg_read_file('/etc/passwd')",
    "pg_read_binary_file": "SELECT pg_read_binary_file('PG_VERSION')",
    "pg_ls_dir": "SELECT pg_ls_dir('.')",
    "pg_stat_file": "SELECT pg_stat_file('PG_VERSION')",
    "large objects": "SELECT lo_create(0)",
    "large objects from bytes": "SELECT lo_from_bytea(0, 'x')",
    "large objects from files": "SELECT lo_import('/etc/passwd')",
    "the lock of every flush": "SELECT pg_advisory_lock(7061, 1)",
    "the same, shared": "SELECT pg_advisory_lock_shared(7061, 1)",
    "the same, tried": "SELECT pg_try_advisory_xact_lock(7061, 1)",
    "a move's lock": "SELECT pg_advisory_xact_lock(7062, 1)",
    "code that catches a cancellation": "DO $$ BEGIN PERFORM 1; END $$",
    "the log of changes": "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "writing": "DELETE FROM grafana.telemetry",
    "writing to a device": "UPDATE grafana.devices SET friendly_name = 'x'",
    "a lock that stops writers": "BEGIN; LOCK TABLE grafana.telemetry IN SHARE MODE",
    "a lock on the readings": "BEGIN; LOCK TABLE public.telemetry_own IN ACCESS SHARE MODE",
    "temporary files without end": "SET temp_file_limit = -1",
    "the server's settings": "ALTER SYSTEM SET work_mem = '1GB'",
    "the settings of others": "ALTER DATABASE {name} SET statement_timeout = 1",
    "ending others' sessions": "SELECT pg_terminate_backend({victim_pid})",
    "cancelling others' queries": "SELECT pg_cancel_backend({victim_pid})",
    "reading the configuration": "SELECT * FROM pg_file_settings",
    "reading who may sign in": "SELECT * FROM pg_hba_file_rules",
    "reloading it": "SELECT pg_reload_conf()",
}  # fmt: skip


@pytest.mark.parametrize("about", REFUSED)
def test_a_login_is_refused(
    attack: psycopg.Connection, place: Server, victim: Tenant, stolen: Login, about: str
) -> None:
    with place.admin() as conn:
        row = conn.execute(
            "SELECT role FROM sql_login WHERE account_id = %s", (victim.account_id,)
        ).fetchone()
        assert row is not None
        statement = REFUSED[about].format(
            name=place.name, victim=row[0], thief=stolen.user, victim_pid=conn.info.backend_pid
        )
        attack.execute("SET default_transaction_read_only = off")
        with pytest.raises(DENIED):
            attack.execute(statement)


@pytest.fixture(scope="module")
def chunk(place: Server, victim: Tenant) -> str:
    """The chunk that holds the victim's newest readings, by its name."""
    with place.admin() as conn:
        row = conn.execute(
            "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
            " WHERE hypertable_name = 'telemetry_own' ORDER BY range_end DESC LIMIT 1"
        ).fetchone()
    assert row is not None
    return str(row[0])


def test_a_chunk_is_closed_by_its_name(attack: psycopg.Connection, chunk: str) -> None:
    for statement in (
        f"SELECT * FROM {chunk}",
        f"TABLE {chunk}",
        f"COPY {chunk} TO STDOUT",
        f"SELECT _timescaledb_functions.drop_chunk('{chunk}'::regclass)",
        f"SELECT query_to_xml('SELECT * FROM {chunk}', true, true, '')",
        f"SELECT table_to_xml('{chunk}', true, true, '')",
        f"DELETE FROM {chunk}",
    ):
        attack.execute("SET default_transaction_read_only = off")
        with pytest.raises(errors.InsufficientPrivilege):
            attack.execute(statement)


HARMLESS = {
    "everything there is": "SELECT * FROM grafana.telemetry",
    "everything as text": "SELECT t::text FROM grafana.telemetry AS t",
    "latest": "SELECT * FROM grafana.latest",
    "devices": "SELECT * FROM grafana.devices",
    "series": "SELECT * FROM grafana.series",
    "a division that fails on the victim's value":
        "SELECT count(*) FROM grafana.telemetry WHERE 1 / (value - 424242.25) < 1e9",
    "a cast that fails on the victim's text":
        "SELECT count(*) FROM grafana.telemetry WHERE text LIKE 'hidden%' AND text::int = 1",
    "a cast of a name": "SELECT count(*) FROM grafana.devices WHERE thing_name LIKE 'v%'"
        " AND thing_name::int = 1",
    "a cast of a metric": "SELECT * FROM grafana.series"
        " WHERE metric LIKE 'hid%' AND metric::int = 1",
    "a cast in the newest": "SELECT * FROM grafana.latest"
        " WHERE text LIKE 'hid%' AND text::int = 1",
    "an order that casts": "SELECT count(*) FROM (SELECT * FROM grafana.telemetry"
        " ORDER BY 1 / greatest(0, 1000 - value)) AS t",
    "an aggregate that casts": "SELECT max(1 / greatest(0, 1000 - value))"
        " FROM grafana.telemetry",
    "the group's name": "SET ROLE {name}_grafana; SELECT * FROM grafana.telemetry",
    "as XML": "SELECT schema_to_xml('grafana', true, true, '')",
    "the whole database as XML": "SELECT database_to_xml(true, true, '')",
    "by COPY": "SELECT query_to_xml('TABLE grafana.devices', true, true, '')",
    "the catalog of what it may see": "SELECT * FROM information_schema.columns",
    "tables by name": "SELECT * FROM information_schema.tables",
    "views": "SELECT definition FROM pg_views WHERE schemaname = 'grafana'",
    "functions": "SELECT prosrc FROM pg_proc WHERE proname ~ 'my_|has_number'",
    "databases": "SELECT datname FROM pg_database",
    "settings": "SELECT * FROM pg_settings",
    "roles": "SELECT * FROM information_schema.enabled_roles",
    "sequences": "SELECT * FROM pg_sequences",
    "cursors": "SELECT * FROM pg_cursors",
    "descriptions": "SELECT description FROM pg_description",
}  # fmt: skip


@pytest.mark.parametrize("about", HARMLESS)
def test_what_a_login_may_do_shows_nothing_of_another(
    attack: psycopg.Connection, place: Server, about: str
) -> None:
    for setting in ("", "SET enable_nestloop = off", "SET enable_indexscan = off"):
        if setting:
            attack.execute(setting)
        *before, last = HARMLESS[about].format(name=place.name).split("; ")
        for statement in before:
            attack.execute(statement)
        shown = str(attack.execute(last).fetchall())
        assert not [secret for secret in SECRETS if secret in shown]


def test_the_thief_sees_his_own(attack: psycopg.Connection) -> None:
    row = attack.execute("SELECT count(*), max(value) FROM grafana.telemetry").fetchone()
    assert row == (96, 1.0)


def _plan(conn: psycopg.Connection, statement: str) -> list[dict[str, Any]]:
    """The nodes of the plan with everything but time: a machine's pace is nobody's secret."""
    row = conn.execute(
        f"EXPLAIN (ANALYZE, TIMING off, VERBOSE, FORMAT JSON) {statement}"
    ).fetchone()
    assert row is not None
    top = row[0] if isinstance(row[0], list) else json.loads(row[0])
    found: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        found.append({key: value for key, value in node.items() if key != "Plans"})
        for child in node.get("Plans", []):
            walk(child)

    walk(top[0]["Plan"])
    return found


HOSTILE = (
    "SET enable_nestloop = off",
    "SET enable_indexscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_indexonlyscan = off",
    "SET enable_material = off",
    "SET enable_memoize = off",
    "SET join_collapse_limit = 1",
    "SET from_collapse_limit = 1",
    "SET constraint_exclusion = off",
    "SET timescaledb.enable_chunk_append = off",
    "SET timescaledb.enable_constraint_aware_append = off",
    "SET timescaledb.enable_optimizations = off",
    "SET enable_seqscan = off",
)
PROBES = (
    "SELECT count(*) FROM grafana.telemetry WHERE value > 424245",
    "SELECT count(*) FROM grafana.telemetry WHERE value = 424242.25",
    "SELECT count(*) FROM grafana.telemetry WHERE text = 'hidden text 7'",
    "SELECT count(*) FROM grafana.telemetry WHERE metric = 'hidden_metric'",
    "SELECT count(*) FROM grafana.telemetry WHERE thing_name = 'victim-0' AND kind = 'number'",
    "SELECT count(*) FROM grafana.series WHERE metric = 'hidden_metric'",
    "SELECT count(*) FROM grafana.devices WHERE thing_name = 'victim-0'",
    "SELECT count(*) FROM grafana.latest WHERE value > 424245",
)


def test_no_plan_depends_on_what_another_account_holds(
    own_place: Server,
) -> None:
    """EXPLAIN ANALYZE, estimates and all, is the same whatever the victim's readings say."""
    from grafana_support import add_series
    from support import make_tenant

    victim, thief = make_tenant(own_place.url, "victim"), make_tenant(own_place.url, "thief")
    with own_place.admin() as conn:
        hidden = add_series(conn, victim, "hidden_metric", "number")
        mine = add_series(conn, thief, "temp", "number")
        conn.execute(
            # within one chunk: which pages rows stand on is not what this is about
            "INSERT INTO telemetry_own"
            " SELECT date_trunc('day', now(), 'UTC') - make_interval(mins => n), a, s, 424242.25"
            " FROM generate_series(1, 500) AS n,"
            " (VALUES (%s::int, %s::int), (%s, %s)) AS t (a, s)",
            (victim.account_id, hidden, thief.account_id, mine),
        )
        conn.execute("UPDATE telemetry_own SET value = 1 WHERE series_id = %s", (mine,))
        conn.execute("VACUUM FULL telemetry_own")
        conn.execute("ANALYZE")
    login = own_place.login(thief)

    def look() -> list[Any]:
        seen: list[Any] = []
        for hostile in range(len(HOSTILE) + 1):
            with signed_in(login) as conn:
                for setting in HOSTILE[:hostile]:
                    conn.execute(setting)
                seen += [_plan(conn, probe) for probe in PROBES]
        return seen

    before = look()
    with own_place.admin() as conn:
        conn.execute("UPDATE telemetry_own SET value = random() WHERE series_id = %s", (hidden,))
        conn.execute("UPDATE series SET metric = 'renamed' WHERE id = %s", (hidden,))
        conn.execute(
            "UPDATE device SET thing_name = 'x' || id WHERE account_id = %s", (victim.account_id,)
        )
        conn.execute("VACUUM FULL telemetry_own")
        conn.execute("ANALYZE")
    assert look() == before


def test_a_scan_that_is_forced_tells_no_more_than_how_large_a_day_is(
    attack: psycopg.Connection,
) -> None:
    """Every chunk is read by the series' number alone, whatever the planner is told."""
    for setting in HOSTILE[:-1]:
        attack.execute(setting)
    for minutes in (5, 60, 600):
        nodes = _plan(
            attack,
            "SELECT count(*) FROM grafana.telemetry WHERE time >="
            f" '{attack.execute('SELECT now()').fetchone()[0].isoformat()}'::timestamptz"  # type: ignore[index]
            f" - interval '{minutes} minutes'",
        )
        for node in nodes:
            if node.get("Schema") == "_timescaledb_internal":
                told = f"{node.get('Filter', '')} {node.get('Index Cond', '')}"
                assert "series_id = s.id" in told
                # the range of time is part of the same filter: what it removes is everything else
                assert "Index Cond" not in node or "series_id" in node["Index Cond"]


def test_more_than_three_connections_are_refused(place: Server, stolen: Login) -> None:
    open_ones = [signed_in(stolen) for _ in range(3)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            signed_in(stolen)
    finally:
        for conn in open_ones:
            conn.close()


def test_a_login_begins_read_only_with_a_timeout(attack: psycopg.Connection) -> None:
    shown = [
        attack.execute(f"SHOW {name}").fetchone()
        for name in (
            "default_transaction_read_only", "statement_timeout", "search_path", "temp_file_limit",
            "idle_in_transaction_session_timeout", "timezone",
        )
    ]  # fmt: skip
    assert shown == [("on",), ("20s",), ("grafana, public",), ("1GB",), ("20s",), ("UTC",)]


def test_a_login_of_one_database_does_not_enter_another(stolen: Login, own_place: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(
            host=stolen.host, port=stolen.port, dbname=own_place.name, user=stolen.user,
            password=stolen.password,
        )  # fmt: skip
