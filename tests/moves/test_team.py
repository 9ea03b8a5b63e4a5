"""A new plan with a tier of its own: one entry, one policy file, `paqett migrate`."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from grafana_support import add_series
from paqett import app, db, keys, migrate, moves, sqlfiles
from paqett.principals import SCOPES
from paqett.settings import config_dir, sql_dir
from paqett.web.server import create_app
from people import CHEAP_HASHES
from support import in_database, make_tenant, with_url

ENTRY = """
[team]
tier = "team"
devices = 200
metrics_per_device = 500
points_per_day = 20_000_000
message_bytes = 262_144
alert_rules = 300
grafana = true
"""
POLICY = (
    "SELECT create_tier('team', interval '180 days', columnstore_after => interval '3 days');\n"
)


def test_everything_follows_from_an_entry_and_a_policy_file(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_database(bare_database_url, migrate.migrate)
    tenant = make_tenant(bare_database_url, "small", plan="free")

    folder = tmp_path / "sql"
    shutil.copytree(sql_dir(), folder)
    (folder / "policies" / "team.sql").write_text(POLICY)
    plans = tmp_path / "plans.toml"
    plans.write_text((config_dir() / "plans.toml").read_text() + ENTRY)
    for module in (migrate, sqlfiles):
        monkeypatch.setattr(module, "sql_dir", lambda: folder)
    assert in_database(bare_database_url, migrate.migrate) == []

    _the_database_knows_it(bare_database_url)
    settings = with_url(bare_database_url, PAQETT_PAQETT__PLANS_FILE=str(plans), **CHEAP_HASHES)
    now = app.utc_now()
    with psycopg.connect(bare_database_url) as conn:
        series = add_series(conn, tenant, "old", "number")

    async def work() -> None:
        async with app.services(settings, "test", app.utc_now) as services:
            async with db.transaction(services.pool) as conn:
                made = await keys.create(conn, tenant.account_id, "t", sorted(SCOPES), None, None)
                await moves.set_plan(conn, tenant.account_id, services.plans["team"], now)
            more = True
            while more:
                async with db.transaction(services.pool) as conn:
                    more = await moves.move_slice(conn, tenant.account_id, now)
            async with db.transaction(services.pool) as conn:
                assert await moves.close_move(conn, tenant.account_id)
            application = create_app(services)
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(application), base_url="http://test",
                headers={"Authorization": f"Bearer {made.key}"},
            ) as client:  # fmt: skip
                await _people_see_it(client, tenant.devices[0])
            await application.state.door.close()
            await application.state.hub.close()

    async def _people_see_it(client: httpx.AsyncClient, device: str) -> None:
        plan = (await client.get("/api/v1/plan")).json()
        assert (plan["name"], plan["retention_days"], plan["devices"]) == ("team", 180, 200)
        assert (plan["metrics_per_device"], plan["alert_rules"]) == (500, 300)
        sent = [
            {"ts": (now - timedelta(days=days)).isoformat(), "old": days} for days in (179, 181, 1)
        ]
        answer = (await client.post(f"/api/v1/devices/{device}/telemetry", json=sent)).json()
        assert answer["accepted"] == 2
        assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(1, "ts_too_old")]
        with psycopg.connect(bare_database_url) as conn:
            # expired, and its chunk is still there
            conn.execute(
                "INSERT INTO telemetry_team VALUES (%s, %s, %s, 180)",
                (now - timedelta(days=180, hours=1), tenant.account_id, series),
            )
        path = f"/api/v1/devices/{device}/telemetry"
        shown = (await client.get(path, params={"from": "-400d"})).json()
        assert [item["value"] for item in shown["items"]] == [179, 1]

    asyncio.run(work())


def _the_database_knows_it(url: str) -> None:
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("SELECT retention_by FROM tier WHERE name = 'team'").fetchone()
        assert row is not None
        policies = conn.execute(
            "SELECT proc_name, count(*) FROM timescaledb_information.jobs"
            " WHERE hypertable_name LIKE 'telemetry\\_team%' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        own = [("policy_compression", 2), ("policy_retention", 2)]
        assert policies == (own if row == ("timescaledb",) else [])
        for age in (182, 179):
            conn.execute(
                "INSERT INTO telemetry_team VALUES (now() - make_interval(days => %s), 1, 1, 1)",
                (age,),
            )
        conn.execute(f'SET ROLE "{name}_worker"')
        assert conn.execute("SELECT apply_retention('team')").fetchone() == (1,)
        conn.execute("RESET ROLE")
        conn.execute("TRUNCATE telemetry_team")
        for role, right in (("ingest", "INSERT"), ("api", "SELECT"), ("worker", "DELETE")):
            held = conn.execute(
                "SELECT has_table_privilege(%s, 'telemetry_team', %s)", (f"{name}_{role}", right)
            ).fetchone()
            assert held == (True,)
        seen = conn.execute(
            "SELECT pg_get_viewdef('grafana.telemetry'::regclass) LIKE '%telemetry_team%'"
        ).fetchone()
        assert seen == (True,)
