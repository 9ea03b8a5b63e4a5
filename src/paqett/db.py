"""Connections to PostgreSQL: one pool for each process, one transaction for each piece of work."""

import os
import select
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection, IsolationLevel, OperationalError, ProgrammingError, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError, Unavailable
from paqett.settings import Database
from paqett.sqlfiles import query

Connection = AsyncConnection[DictRow]
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# set once for a connection, not once more in each transaction. What a plan may leave out, chunks
# above all, is known by the values alone
_READING = (
    " -c default_transaction_read_only=on -c statement_timeout={:.0f}"
    " -c plan_cache_mode=force_custom_plan"
)


def require_url(settings: Database) -> str:
    """The address of the database, by verified TLS beyond this machine unless it says otherwise.

    Raises `ConfigurationError` where none is set, or for one that cannot be read, of which nothing
    is repeated: its password may be what is wrong with it.
    """
    if not settings.url:
        raise ConfigurationError(
            "PAQETT_DATABASE__URL is not set; `make up` starts a database of its own"
        )
    try:
        parts = conninfo_to_dict(settings.url)
        conninfo_to_dict(settings.replica_url)
    except ProgrammingError:
        raise ConfigurationError(
            "database.url or replica_url is no address of PostgreSQL's; in a password % : / @ ? #"
            " are written as %25 %3A %2F %40 %3F %23"
        ) from None
    if _is_here(parts) or "sslmode" in parts or "PGSSLMODE" in os.environ:
        return settings.url
    return make_conninfo(settings.url, sslmode="verify-full", **_trusted(parts))


def _is_here(parts: Mapping[str, Any]) -> bool:
    """Whether every server an address names is on this machine."""
    named = parts.get("hostaddr") or parts.get("host") or os.environ.get("PGHOST", "")
    hosts = str(named).split(",")
    return all(not host or host[0] in "/@" or host in LOOPBACK for host in hosts)


def _trusted(parts: Mapping[str, Any]) -> dict[str, str]:
    """Whom to believe: libpq by itself knows nobody but who is in a file of its own."""
    own = Path("~/.postgresql/root.crt").expanduser()
    if "sslrootcert" in parts or "PGSSLROOTCERT" in os.environ or own.exists():
        return {}
    usual = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, _AUTHORITIES)
    found = [file for file in usual if file and Path(file).is_file()]
    return {"sslrootcert": found[0] if found else "system"}


def pool(
    settings: Database, process: str, *, reading: bool = False
) -> AsyncConnectionPool[Connection]:
    """A closed pool; open it with `async with`.

    One for `reading` writes nothing, and its statements have the statement timeout.
    """
    options = _options(settings, process)
    if reading:
        options["options"] += _READING.format(settings.statement_timeout_s * 1000)
    return AsyncConnectionPool(
        require_url(settings),
        connection_class=AsyncConnection[DictRow],
        min_size=1,
        max_size=settings.pool_size,
        timeout=settings.connect_timeout_s,
        open=False,
        kwargs={**options, "autocommit": True},
        configure=None if reading else _prepare,
        check=_check,
        reconnect_timeout=2.0,
    )


async def connect(settings: Database, process: str, *, autocommit: bool = False) -> Connection:
    """One connection outside the pool, for listening, writing batches and migrations."""
    conn = await AsyncConnection[DictRow].connect(
        require_url(settings), autocommit=True, **_options(settings, process)
    )
    try:
        await _prepare(conn)
        await conn.set_autocommit(autocommit)
    except BaseException:
        await conn.close()
        raise
    return conn


async def _check(conn: Connection) -> None:
    """Nothing comes on an idle connection but its end: where something has, the server is asked."""
    waiting = select.poll()
    waiting.register(conn.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(conn)


async def _prepare(conn: Connection) -> None:
    await conn.execute(query("unscoped_prepare_session"))


def _options(settings: Database, process: str) -> dict[str, Any]:
    return {
        "row_factory": dict_row,
        "application_name": f"paqett {process}",
        # a host that vanished must not hold its locks for hours, at either end
        "options": "-c timezone=UTC -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5"
        " -c tcp_keepalives_count=3 -c tcp_user_timeout=20000",
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "connect_timeout": max(1, round(settings.connect_timeout_s)),
    }


@asynccontextmanager
async def statements(source: AsyncConnectionPool[Connection]) -> AsyncIterator[Connection]:
    """A connection of the pool on which every statement is a transaction of its own.

    Raises `Unavailable` while the database cannot be reached, `QueryCanceled` at the timeout.
    """
    try:
        async with source.connection() as conn:
            try:
                yield conn
            except errors.FeatureNotSupported as error:
                if "cached plan" in str(error):  # a migration changed what this one prepared
                    await conn.close()
                    raise OperationalError(str(error)) from error
                raise
    except errors.QueryCanceled:
        raise
    except (PoolTimeout, OperationalError) as error:
        raise Unavailable("The database cannot be reached or took too long; try again.") from error


@asynccontextmanager
async def transaction(
    source: AsyncConnectionPool[Connection], *, timeout_s: float | None = None
) -> AsyncIterator[Connection]:
    """A connection of the pool inside one transaction, with a statement timeout in seconds.

    Raises `Unavailable` while the database cannot be reached, `QueryCanceled` at the timeout.
    """
    async with statements(source) as conn, conn.transaction():
        if timeout_s is not None:
            await conn.execute(
                "SELECT set_config('statement_timeout', %s, true)", (f"{timeout_s * 1000:.0f}",)
            )
        yield conn


@asynccontextmanager
async def snapshot(conn: Connection) -> AsyncIterator[str]:
    """Hold the database as it is at this moment, for `as_of`; no table is locked meanwhile."""
    await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await conn.set_read_only(True)
    async with conn.transaction():
        # whoever ends idle transactions would end this one
        await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        row = await (await conn.execute("SELECT pg_export_snapshot() AS name")).fetchone()
        assert row is not None  # noqa: S101 - a function gives a row
        yield row["name"]


@asynccontextmanager
async def as_of(conn: Connection, held: str) -> AsyncIterator[Connection]:
    """One short transaction on what another connection's `snapshot` holds."""
    await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await conn.set_read_only(True)
    async with conn.transaction():
        statement = sql.SQL("SET TRANSACTION SNAPSHOT {}")
        await conn.execute(statement.format(sql.Literal(held)))
        yield conn
