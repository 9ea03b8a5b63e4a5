"""On the Community edition each tier's own policy drops what is older than its retention."""

import psycopg
import pytest
from psycopg import sql

from community_server import migrated, when_free
from paqett import grafana


@pytest.mark.parametrize(("tier", "days"), [("free", 7), ("paid", 90), ("own", 365)])
def test_the_policy_of_each_tier_drops_what_is_older_and_nothing_else(
    community_url: str, tier: str, days: int
) -> None:
    with when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        for table in (f"telemetry_{tier}", f"telemetry_{tier}_text"):
            for age in (days + 3, days + 2, days - 1, 0):
                conn.execute(
                    f"INSERT INTO {table} VALUES (now() - make_interval(days => %s), 1, 1, %s)",
                    (age, "1"),
                )
            job = conn.execute(
                "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = %s"
                " AND proc_name = 'policy_retention'",
                (table,),
            ).fetchone()
            assert job is not None
            conn.execute(f"CALL run_job({job[0]})")
            left = conn.execute(
                f"SELECT extract(day FROM now() - time)::int FROM {table} ORDER BY time"
            ).fetchall()
            assert left == [(days - 1,), (0,)]


def test_migrating_again_keeps_one_policy_for_each_hypertable(community_url: str) -> None:
    migrated(community_url)


def test_an_sql_login_sees_its_accounts_readings_and_nothing_else(community_url: str) -> None:
    """Also PostgreSQL's newer rules for CREATEROLE, which the Apache server here may not have."""
    with when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        conn.execute("TRUNCATE telemetry_own, telemetry_own_text")
        for account in (1, 2):
            conn.execute(
                "INSERT INTO account (email, plan, tier) VALUES (%s, 'own', 'own')", (str(account),)
            )
            conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier)"
                " VALUES ('d' || %s::text, %s, 'thing', '')",
                (account, account),
            )
            conn.execute(
                "INSERT INTO series (account_id, device_id, metric, kind)"
                " VALUES (%s, 'd' || %s::text, 'm', 'number')",
                (account, account),
            )
            conn.execute(
                "INSERT INTO telemetry_own VALUES (now(), %s, %s, %s)",
                (account, account, 40 + account),
            )
        named = conn.execute("SELECT current_database() || '_api'").fetchone()
        assert named is not None
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(named[0])))
        made = [
            conn.execute(
                "SELECT create_sql_login(%s, %s, 20)", (account, grafana.scram_verifier("secret"))
            ).fetchone()
            for account in (1, 2)
        ]
        conn.execute("RESET ROLE")
        assert made[0] is not None
        conn.execute("DELETE FROM account WHERE id = 2")
        left = conn.execute("SELECT role FROM sql_login JOIN pg_roles ON rolname = role").fetchall()
        assert left == [made[0]]
        login = sql.Identifier(made[0][0])
        conn.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(login))
        seen = conn.execute("SELECT device, value FROM grafana.telemetry").fetchall()
        assert seen == [("d1", 41.0)]
        assert conn.execute("SELECT device FROM grafana.devices").fetchall() == [("d1",)]
        for refused in (
            "SELECT * FROM public.telemetry_own",
            "SELECT * FROM timescaledb_information.jobs",
            "SELECT public.add_job('pg_sleep', '1 h')",
            "SELECT pg_advisory_lock(7061, 1)",
            "CREATE TEMPORARY TABLE mine (id int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(refused)
        # the npm build keeps what a session is for the next one
        conn.execute("RESET SESSION AUTHORIZATION")
