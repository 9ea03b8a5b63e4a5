"""Every query of the dashboards, as Grafana would send it, on the real database."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from grafana_support import Server, add_series, signed_in
from paqett import dashboards
from support import Tenant, make_tenant

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=20)
FROM, TO = (f"{DAY:%Y-%m-%d}T{hour}:00:00Z" for hour in ("06", "18"))
FROM_S, TO_S = (int((DAY + timedelta(hours=hour)).timestamp()) for hour in (6, 18))
DASHBOARDS = {
    name: json.loads(path.read_text())
    for name, path in dashboards.shipped().items()
    if name.endswith(".json")
}
SQL = [name for name in DASHBOARDS if dashboards.needs_login(name)]
_MACRO = re.compile(r"\$(__\w+)\(([^()]*)\)")


def expand(statement: str, interval: str = "5m", seconds: str = "300.000") -> str:
    """What Grafana's PostgreSQL data source makes of its macros, with `timescaledb: true`."""

    def one(found: re.Match[str]) -> str:
        name = found[1]
        column, *more = [part.strip() for part in found[2].split(",")]
        bucket = f"time_bucket('{seconds}s',{column})"
        epoch = f"floor(extract(epoch from {column})/300)*300"
        if more:
            assert more[0].strip("'") == interval
        return {
            "__time": f'{column} AS "time"',
            "__timeEpoch": f'extract(epoch from {column}) as "time"',
            "__timeFilter": f"{column} BETWEEN '{FROM}' AND '{TO}'",
            "__timeFrom": f"'{FROM}'",
            "__timeTo": f"'{TO}'",
            "__timeGroup": bucket,
            "__timeGroupAlias": f'{bucket} AS "time"',
            "__unixEpochFilter": f"{column} >= {FROM_S} AND {column} <= {TO_S}",
            "__unixEpochNanoFilter": f"{column} >= {FROM_S}000000000"
            f" AND {column} <= {TO_S}000000000",
            "__unixEpochNanoFrom": f"{FROM_S}000000000",
            "__unixEpochNanoTo": f"{TO_S}000000000",
            "__unixEpochGroup": epoch.replace(f"extract(epoch from {column})", column),
            "__unixEpochGroupAlias": f"{epoch.replace(f'extract(epoch from {column})', column)}"
            ' AS "time"',
        }[name]

    expanded = _MACRO.sub(one, statement.replace("$__interval", interval))
    assert "$__" not in expanded
    return expanded


@pytest.fixture(scope="module")
def home(place: Server) -> Tenant:
    """Forty days of two devices, each with a number, a switch and a text; and somebody else's."""
    tenant = make_tenant(place.url, "home")
    other = make_tenant(place.url, "other")
    with place.admin() as conn:
        for whose in (tenant, other):
            for device in (0, 1):
                for metric, kind, form, value in (
                    ("temp", "number", "", "extract(hour FROM t)"),
                    ("on", "boolean", "", "extract(hour FROM t)::int %% 2"),
                    ("mode", "text", "_text", "'m' || extract(hour FROM t)"),
                ):
                    series = add_series(conn, whose, metric, kind, device)
                    conn.execute(
                        f"INSERT INTO telemetry_own{form} SELECT t, %s, %s, {value}"
                        " FROM generate_series(%s, %s, interval '1 hour') AS t",
                        (
                            whose.account_id,
                            series,
                            DAY - timedelta(days=28),
                            DAY + timedelta(days=12),
                        ),
                    )
        conn.execute("ANALYZE")
    return tenant


@pytest.fixture(scope="module")
def asking(place: Server, home: Tenant) -> Iterator[psycopg.Connection]:
    with signed_in(place.login(home)) as conn:
        yield conn


def _chosen(statement: str, tenant: Tenant) -> str:
    """The variables as `sqlstring` writes them."""
    return (
        statement.replace("${device:sqlstring}", f"'{tenant.devices[0]}'")
        .replace("${metric:sqlstring}", "'temp','on','mode'")
        .replace("%", "%%")
    )


def _queries(name: str) -> list[tuple[str, str, str]]:
    """Title, format and text of every query and variable."""
    dashboard = DASHBOARDS[name]
    found = [
        (f"{name} ${one['name']}", "variable", one["query"])
        for one in dashboard["templating"]["list"]
    ]
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "paqett-sql"
        found += [
            (f"{name} {panel['title']}", target["format"], target["rawSql"])
            for target in panel["targets"]
        ]
    return found


QUERIES = [query for name in SQL for query in _queries(name)]


@pytest.mark.parametrize(("title", "form", "text"), QUERIES, ids=[query[0] for query in QUERIES])
def test_a_query_of_a_dashboard_answers_in_its_form(
    asking: psycopg.Connection, home: Tenant, title: str, form: str, text: str
) -> None:
    cursor = asking.execute(expand(_chosen(text, home)).encode())
    rows = cursor.fetchall()
    assert rows
    assert "other" not in str(rows)
    columns = [column.name for column in cursor.description or ()]
    if form == "time_series":
        assert columns[0] == "time"
        times = [row[0] for row in rows]
        assert times == sorted(times)
        assert all(isinstance(row[-1], (int, float)) for row in rows)
        assert len(set(times)) == 13  # 6 to 18 o'clock, an hour each
    if "$__time" in text and form == "table":
        hours = {row[columns.index("time")].hour for row in rows}
        assert hours <= set(range(6, 19))


def _chunks(asking: psycopg.Connection, statement: str) -> set[str]:
    row = asking.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()).fetchone()
    assert row is not None
    return set(re.findall(r"_hyper_\d+_\d+_chunk", json.dumps(row[0])))


RANGED = [query for query in QUERIES if "FROM grafana.telemetry" in query[2]]


@pytest.mark.parametrize(("title", "form", "text"), RANGED, ids=[query[0] for query in RANGED])
def test_a_range_of_time_reaches_the_chunks(
    asking: psycopg.Connection, home: Tenant, title: str, form: str, text: str
) -> None:
    everything = _chunks(asking, "SELECT * FROM grafana.telemetry")
    assert len(everything) > 75
    assert "$__timeFilter(time)" in text or "$__timeFrom()" in text
    touched = _chunks(asking, expand(_chosen(text, home)))
    assert 1 <= len(touched) <= 2  # the day's numbers, the day's texts


def test_the_newest_values_need_no_range(asking: psycopg.Connection) -> None:
    rows = asking.execute("SELECT thing_name, metric FROM grafana.latest").fetchall()
    assert len(rows) == len(set(rows)) == 6


MACROS = {
    "SELECT $__time(time), value FROM grafana.telemetry WHERE $__timeFilter(time)": 13 * 6,
    "SELECT $__timeEpoch(time), value FROM grafana.telemetry WHERE $__timeFilter(time)": 13 * 6,
    "SELECT 1 FROM grafana.telemetry WHERE time >= $__timeFrom() AND time < $__timeTo()": 12 * 6,
    "SELECT $__timeGroup(time, '1h') AS hour, avg(value) FROM grafana.telemetry"
    " WHERE $__timeFilter(time) GROUP BY 1": 13,
    "SELECT $__timeGroupAlias(time, '1h'), avg(value) FROM grafana.telemetry"
    " WHERE $__timeFilter(time) GROUP BY 1": 13,
    "SELECT $__timeGroupAlias(time, '1h', NULL), device, avg(value) FROM grafana.telemetry"
    " WHERE $__timeFilter(time) GROUP BY 1, 2": 26,
    "SELECT 1 FROM grafana.telemetry WHERE $__unixEpochFilter(extract_epoch)": 13 * 6,
    "SELECT $__unixEpochGroupAlias(extract_epoch, '1h'), count(*) FROM grafana.telemetry"
    " WHERE $__timeFilter(time) GROUP BY 1": 13,
}


@pytest.mark.parametrize("seconds", ["3600", "3600.000"])
@pytest.mark.parametrize("statement", MACROS)
def test_a_macro_of_grafana_means_what_it_says(
    asking: psycopg.Connection, statement: str, seconds: str
) -> None:
    text = expand(statement, "1h", seconds).replace("/300)*300", "/3600)*3600")
    text = text.replace("extract_epoch", "extract(epoch from time)")
    assert len(asking.execute(text.encode()).fetchall()) == MACROS[statement]


def test_no_dashboard_uses_a_macro_that_is_not_proved_here() -> None:
    used = {name for _, _, text in QUERIES for name, _ in _MACRO.findall(text)}
    proved = {name for text in MACROS for name, _ in _MACRO.findall(text)}
    assert used <= proved
    assert {"__timeFilter", "__timeGroupAlias"} <= used


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"].startswith("paqett-")
    assert [panel["id"] for panel in dashboard["panels"]] == list(
        range(1, len(dashboard["panels"]) + 1)
    )
    known = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{(\w+)[}:]", json.dumps(dashboard))) - {
        "__from",
        "__to",
        "__interval",
    }
    assert used <= known
    linked = {link["url"].removeprefix("/d/") for link in dashboard["links"]}
    assert linked <= {other["uid"] for other in DASHBOARDS.values()}
