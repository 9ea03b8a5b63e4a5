"""On the Community edition each tier's own policy drops what is older than its retention."""

import psycopg
import pytest
from psycopg import sql

from community_server import migrated, run, when_free
from paqett import grafana
from paqett.db import Connection
from paqett.erasure import steps, sweep


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


def test_an_erasure_takes_its_readings_out_of_compressed_chunks_and_no_others(
    community_url: str,
) -> None:
    with when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        for table, value in (("telemetry_paid", "n"), ("telemetry_paid_text", "'x' || n")):
            conn.execute(f"TRUNCATE {table}")
            conn.execute(
                f"INSERT INTO {table} SELECT now() - n * interval '1 h', 7 + n % 2, 70 + n % 2,"
                f" {value} FROM generate_series(1, 200) AS n"
            )
            conn.execute(f"SELECT compress_chunk(c) FROM show_chunks('{table}') AS c")
        before = _others(conn)

    async def erase(conn: Connection) -> int:
        gone, reach = 0, sweep.Reach()
        while True:
            async with conn.transaction():
                after = await sweep.erase_some(conn, 7, [70], reach)
            if after is None:
                break
            gone, reach = gone + sum(after.rows.values()), after
        for stretch in await steps.stretches(conn, ["paid"]):
            assert await steps.series_left(conn, 7, stretch) == []
        return gone

    assert run(community_url, erase) == 200
    with when_free(lambda: psycopg.connect(community_url, autocommit=True)) as conn:
        assert _others(conn) == before
        for table in ("telemetry_paid", "telemetry_paid_text"):
            found = conn.execute(f"SELECT DISTINCT account_id FROM {table}").fetchall()
            assert found == [(8,)]


def _others(conn: psycopg.Connection) -> list[tuple[str, int]]:
    """A checksum of the other account's readings in each table."""
    found = []
    for table in ("telemetry_paid", "telemetry_paid_text"):
        row = conn.execute(
            f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)), count(*) FROM {table} AS t"
            " WHERE account_id = 8"
        ).fetchone()
        assert row is not None
        found.append((str(row[0]), int(row[1])))
    return found


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
