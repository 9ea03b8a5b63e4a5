"""What the tests of SQL logins need beside their fixtures."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql

import kept
from paqett import accounts, db, grafana, migrate
from paqett.grafana import Login, Place
from paqett.plans import load_plans
from paqett.settings import Settings, load
from support import Tenant, at, create, drop, in_database, with_url

PLANS = load_plans(load({}).plans_file)
# what stands in the victim's account and nowhere else
SECRETS = ("424242.25", "victim", "top-secret", "hidden_metric", "hidden text")


class Server(msgspec.Struct):
    """A database of this test's own: `url` is the superuser's."""

    url: str
    name: str
    settings: Settings

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def as_role(self, role: str) -> psycopg.Connection:
        """A connection that is what a process of ours is."""
        conn = psycopg.connect(self.url, autocommit=True)
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{self.name}_{role}")))
        return conn

    def run(self, work: Any, role: str | None = None) -> Any:
        """`work` on one connection in one transaction, as a process of ours where one is named."""

        async def run() -> Any:
            async with await db.connect(self.settings.database, "test") as conn:
                if role is not None:
                    name = sql.Identifier(f"{self.name}_{role}")
                    await conn.execute(sql.SQL("SET LOCAL ROLE {}").format(name))
                return await work(conn)

        return asyncio.run(run())

    def login(self, tenant: Tenant, plan: str = "own", limit_s: int = 20) -> Login:
        host, port = urlsplit(self.url).hostname, urlsplit(self.url).port

        async def make(conn: db.Connection) -> Login:
            account = await accounts.find(conn, str(tenant.account_id))
            place = Place(host or "", port or 5432, "prefer")
            return await grafana.create(conn, account, PLANS[plan], place, limit_s)

        made: Login = self.run(make, "api")
        return made


def signed_in(login: Login, **options: Any) -> psycopg.Connection:
    """Through the network and the password, as Grafana does."""
    return psycopg.connect(
        host=login.host, port=login.port, dbname=login.database, user=login.user,
        password=login.password, sslmode=login.sslmode, autocommit=True, **options,
    )  # fmt: skip


def fresh_place(server_url: str) -> Iterator[Server]:
    name = f"paqett_sql_{uuid.uuid4().hex[:8]}"
    create(server_url, name)
    url = at(server_url, name)
    in_database(url, migrate.migrate)
    yield Server(url, name, with_url(url))
    kept.close_all()
    drop(server_url, name)


def add_series(
    conn: psycopg.Connection, tenant: Tenant, metric: str, kind: str, device: int = 0
) -> int:
    row = conn.execute(
        "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
        " RETURNING id",
        (tenant.account_id, tenant.devices[device], metric, kind),
    ).fetchone()
    assert row is not None
    return int(row[0])
