"""What a login sees is exactly its account's readings, clamped, each once, in every tier."""

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import psycopg
import pytest

from door import Door, message
from grafana_support import PLANS, Server, add_series, signed_in
from paqett import accounts, db, migrate, moves
from paqett.readings import read
from paqett.readings.query import Query
from support import Tenant, in_database, make_tenant, with_url

NOW = datetime.now(UTC)


def _put(conn: psycopg.Connection, tier: str, tenant: Tenant, series: int, ages: list[Any]) -> None:
    for age in ages:
        conn.execute(
            f"INSERT INTO telemetry_{tier} VALUES (now() - %s::interval, %s, %s, '1')",
            (age, tenant.account_id, series),
        )


def _ages(server: Server, tenant: Tenant, plan: str, *, metric: str) -> list[int]:
    """How old what the login sees is, in minutes."""
    with signed_in(server.login(tenant, plan)) as conn:
        rows = conn.execute(
            "SELECT round(extract(epoch FROM now() - time) / 60)::int FROM grafana.telemetry"
            " WHERE metric = %s ORDER BY 1",
            (metric,),
        ).fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize(("tier", "days"), [("free", 7), ("paid", 90), ("own", 365)])
@pytest.mark.parametrize(("form", "kind"), [("", "number"), ("_text", "text")])
def test_nothing_older_than_the_retention_is_seen(
    place: Server, tier: str, days: int, form: str, kind: str
) -> None:
    tenant = make_tenant(place.url, f"clamped-{tier}{form}", plan=tier)
    minutes = days * 24 * 60
    with place.admin() as conn:
        series = add_series(conn, tenant, "m", kind)
        ages = [f"{minutes + 1} min", f"{minutes - 1} min", "5 min"]
        _put(conn, tier + form, tenant, series, ages)
    assert _ages(place, tenant, "own", metric="m") == [5, minutes - 1]
    with place.admin() as conn:
        conn.execute(
            "UPDATE account SET readable_from = now() - interval '10 min' WHERE id = %s",
            (tenant.account_id,),
        )
    assert _ages(place, tenant, "own", metric="m") == [5]


def test_a_move_shows_each_reading_once_at_every_moment(
    place: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paqett.move_slices._MOST", 4)  # so that there is time to look
    tenant = make_tenant(place.url, "moving", plan="free")
    with place.admin() as conn:
        series = add_series(conn, tenant, "m", "number")
        text = add_series(conn, tenant, "t", "text")
        for number, form in ((series, ""), (text, "_text")):
            conn.execute(
                f"INSERT INTO telemetry_free{form} SELECT now() - make_interval(mins => 60 * n),"
                " %s, %s, '1' FROM generate_series(1, 150) AS n",
                (tenant.account_id, number),
            )
    login = place.login(tenant, "paid")
    seen: list[Any] = []

    def look() -> None:
        with signed_in(login) as conn:
            while len(seen) < 2000 and seen[-1:] != [None]:
                row = conn.execute(
                    "SELECT count(*), count(DISTINCT (metric, time)), min(time)"
                    " FROM grafana.telemetry"
                ).fetchone()
                seen.insert(0, row)

    async def move(conn: db.Connection) -> None:
        await conn.set_autocommit(True)
        async with conn.transaction():
            await moves.set_plan(conn, tenant.account_id, PLANS["paid"], NOW)
        more = True
        while more:
            async with conn.transaction():
                more = await moves.move_slice(conn, tenant.account_id, NOW)
        async with conn.transaction():
            assert await moves.close_move(conn, tenant.account_id)

    looking = Thread(target=look)
    looking.start()
    place.run(move)
    seen.append(None)
    looking.join()
    counted = [row for row in seen if row is not None]
    assert len(counted) > 5
    assert {row[:2] for row in counted} == {(300, 300)}
    with place.admin() as conn:
        assert conn.execute("SELECT count(*) FROM telemetry_free").fetchone() != (300,)


def test_a_reading_that_stands_in_both_tables_is_the_number(place: Server) -> None:
    tenant = make_tenant(place.url, "mixed")
    with place.admin() as conn:
        series = add_series(conn, tenant, "m", "text")
        conn.execute("UPDATE series SET mixed = true WHERE id = %s", (series,))
        for form, value, ages in (("", "7", (1, 2)), ("_text", "word", (2, 3))):
            for age in ages:
                conn.execute(
                    f"INSERT INTO telemetry_own{form} VALUES (date_trunc('hour', now())"
                    " - make_interval(mins => %s), %s, %s, %s)",
                    (age, tenant.account_id, series, value),
                )
    with signed_in(place.login(tenant)) as conn:
        rows = conn.execute(
            "SELECT value, text FROM grafana.telemetry ORDER BY time DESC"
        ).fetchall()
        assert rows == [(7.0, None), (7.0, None), (None, "word")]
        assert conn.execute("SELECT value, text FROM grafana.latest").fetchall() == [(7.0, None)]


def test_the_views_say_what_the_api_says(place: Server) -> None:
    tenant = make_tenant(place.url, "same")
    sender, device = Door(place.settings), tenant.devices[0]
    now = datetime.now(UTC)  # the view judges freshness by the database's clock
    for minute in range(5):
        at = int((now - timedelta(minutes=minute)).timestamp() * 1e6)
        values = {"t": 20.5 + minute, "on": bool(minute % 2), "mode": f"m{minute}"}
        sender.send(message(device, values, at=at))

    async def api(conn: db.Connection) -> tuple[list[Any], list[Any]]:
        account = await accounts.find(conn, str(tenant.account_id))
        span = Query([device], None, now - timedelta(days=1), now + timedelta(hours=1))
        page = await read.read_page(conn, account, span, now, 1000)
        latest = await read.latest(conn, account, tenant.devices, now)
        return (
            [tuple(row) for row in page.rows],
            [(row.time, row.device, row.metric, row.value) for row in latest],
        )

    raw, latest = place.run(api)
    with signed_in(place.login(tenant)) as conn:
        for view, wanted in (("telemetry", raw), ("latest", latest)):
            rows = conn.execute(
                "SELECT time, device, metric, kind, value, text, boolean, thing_name"
                f" FROM grafana.{view}"
            ).fetchall()
            seen = []
            for time, of, metric, kind, value, text, flag, thing in rows:
                assert thing == "same-0"
                shown = {"number": value, "text": text, "boolean": flag}[kind]
                seen.append((time, of, metric, shown))
                assert (value is None) == (kind == "text")
            assert sorted(map(repr, seen)) == sorted(map(repr, wanted))
        devices = conn.execute(
            "SELECT device, thing_name, data, connection FROM grafana.devices ORDER BY thing_name"
        ).fetchall()
        assert devices[0] == (device, "same-0", "fresh", "never")
        assert [row[2] for row in devices] == ["fresh", "never"]
        series = conn.execute("SELECT device, metric, kind FROM grafana.series ORDER BY metric")
        assert series.fetchall() == [
            (device, "mode", "text"), (device, "on", "boolean"), (device, "t", "number"),
        ]  # fmt: skip


def test_a_new_tier_is_seen_after_the_next_migrate(own_place: Server) -> None:
    tenant = make_tenant(own_place.url, "newcomer")
    with own_place.as_role("owner") as conn:
        conn.execute("SELECT create_tier('gold', interval '30 days')")
    in_database(own_place.url, migrate.migrate)
    with own_place.admin() as conn:
        series = add_series(conn, tenant, "m", "number")
        _put(conn, "gold", tenant, series, ["5 min", f"{31 * 24} h"])
        conn.execute("UPDATE account SET tier = 'gold' WHERE id = %s", (tenant.account_id,))
    assert _ages(own_place, tenant, "own", metric="m") == [5]
    with signed_in(own_place.login(tenant)) as conn:
        assert conn.execute("SELECT count(*) FROM grafana.latest").fetchone() == (1,)


def test_the_superuser_and_our_roles_see_nothing_in_the_views(place: Server) -> None:
    with place.admin() as conn:
        for view in ("telemetry", "latest", "devices", "series"):
            assert conn.execute(f"SELECT count(*) FROM grafana.{view}").fetchone() == (0,)
    assert with_url(place.url).grafana.query_limit_s > 0
