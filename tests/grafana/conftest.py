"""A migrated database with its own roles, two accounts full of readings, and their SQL logins."""

from collections.abc import Iterator

import psycopg
import pytest

from grafana_support import Server, add_series, fresh_place, signed_in
from paqett.grafana import Login
from support import Tenant, make_tenant


@pytest.fixture(scope="module")
def place(server_url: str) -> Iterator[Server]:
    """One for a module, since its roles take a while to make."""
    yield from fresh_place(server_url)


@pytest.fixture
def own_place(server_url: str) -> Iterator[Server]:
    """One for a single test, which breaks something."""
    yield from fresh_place(server_url)


@pytest.fixture(scope="module")
def victim(place: Server) -> Tenant:
    """Somebody whose secrets must stay his."""
    tenant = make_tenant(place.url, "victim")
    with place.admin() as conn:
        conn.execute(
            "UPDATE device SET friendly_name = 'top-secret', tags = '{top-secret}',"
            ' attributes = \'{"k": "top-secret"}\' WHERE account_id = %s',
            (tenant.account_id,),
        )
        number = add_series(conn, tenant, "hidden_metric", "number")
        text = add_series(conn, tenant, "hidden_text", "text")
        conn.execute(
            "INSERT INTO telemetry_own SELECT now() - make_interval(mins => n), %s, %s,"
            " 424242.25 + n %% 7 FROM generate_series(1, 3000) AS n",
            (tenant.account_id, number),
        )
        conn.execute(
            "INSERT INTO telemetry_own_text SELECT now() - make_interval(mins => n), %s, %s,"
            " 'hidden text ' || n FROM generate_series(1, 50) AS n",
            (tenant.account_id, text),
        )
        conn.execute(
            "INSERT INTO usage_hour (account_id, device_id, hour, points) VALUES (%s, %s, %s, 1)",
            (tenant.account_id, tenant.devices[0], "2026-01-01T00:00:00Z"),
        )
        conn.execute("ANALYZE")
    place.login(tenant)
    return tenant


@pytest.fixture(scope="module")
def thief(place: Server) -> Tenant:
    """Somebody with a few readings and an SQL login of his own."""
    tenant = make_tenant(place.url, "thief")
    with place.admin() as conn:
        number = add_series(conn, tenant, "temp", "number")
        flag = add_series(conn, tenant, "on", "boolean")
        conn.execute(
            "INSERT INTO telemetry_own SELECT now() - make_interval(hours => n), %s, s, n %% 2"
            " FROM generate_series(1, 48) AS n, unnest(%s::int[]) AS s",
            (tenant.account_id, [number, flag]),
        )
    return tenant


@pytest.fixture(scope="module")
def stolen(place: Server, thief: Tenant) -> Login:
    """The thief's own login."""
    return place.login(thief)


@pytest.fixture
def attack(victim: Tenant, stolen: Login) -> Iterator[psycopg.Connection]:
    """The thief, signed in; the victim's readings lie beside his."""
    with signed_in(stolen) as conn:
        yield conn
