"""Bring a database to this program's schema: forward only, under one lock, again and again.

`sql/migrations/` run once each, in order of their names. `sql/hypertables/`, `sql/policies/` and
`sql/admin/` run every time and converge. procrastinate's own schema is applied from its package.
"""

import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import LiteralString

from procrastinate import __version__ as procrastinate_version
from psycopg import errors, sql

from paqett.db import Connection
from paqett.errors import ConfigurationError, SchemaOutdatedError
from paqett.settings import sql_dir
from paqett.sqlfiles import script

_LOCK = 7061_0000
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


def migrations() -> dict[str, LiteralString]:
    """Our own migrations, name → text, in the order they run."""
    return {
        path.stem: script("migrations", path.name)
        for path in sorted((sql_dir() / "migrations").glob("*.sql"))
    }


async def migrate(conn: Connection) -> list[str]:
    """Do everything that is missing and return the names of the migrations applied.

    `conn` must be in autocommit mode and belong to a superuser, or to the owner of a database
    that already has the extension. Raises `ConfigurationError` where neither holds, or where an
    applied migration was edited afterwards.
    """
    await conn.execute("SET lock_timeout = '30s'")
    await conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        superuser = await bootstrap(conn)
        applied = await _apply_migrations(conn)
        for folder in ("hypertables", "policies"):
            for path in sorted((sql_dir() / folder).glob("*.sql")):
                await _run(conn, script(folder, path.name))
        for name in ("erasure.sql", "roles.sql", "grafana.sql", "operator.sql"):
            await _run(conn, script("admin", name))
        if superuser:
            await conn.execute("RESET ROLE")
            await _run(conn, script("admin", "logins.sql"))
        return applied
    finally:
        if not conn.closed:
            await conn.execute("RESET ROLE")
            await conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


async def bootstrap(conn: Connection) -> bool:
    """Do what only a superuser can, where this is one, and go on as the owner; whether it is.

    `conn` is in autocommit mode. Raises `ConfigurationError` where somebody else must do it first.
    """
    superuser = bool(
        await _scalar(conn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    )
    if superuser:
        await _run(conn, script("admin", "bootstrap.sql"))
        owner = sql.Identifier(f"{await _scalar(conn, 'SELECT current_database()')}_owner")
        await conn.execute(sql.SQL("SET ROLE {}").format(owner))
    elif not await _scalar(conn, "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"):
        raise ConfigurationError(
            "the database has no timescaledb extension and this role may not create it: run"
            " `paqett migrate` once with a superuser's PAQETT_DATABASE__URL"
        )
    return superuser


async def _apply_migrations(conn: Connection) -> list[str]:
    await conn.execute(_TABLE)
    done = await _applied(conn)
    applied = []
    for name, text in _steps(fresh="procrastinate" not in " ".join(done)):
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name in done:
            if not name.startswith("procrastinate") and done[name] != digest:
                raise ConfigurationError(f"the migration {name} was edited after it was applied")
            continue
        async with conn.transaction():
            await conn.execute(text)
            await conn.execute(
                "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", (name, digest)
            )
        applied.append(name)
    return applied


def _steps(*, fresh: bool) -> Iterator[tuple[str, LiteralString]]:
    yield from migrations().items()
    folder = resources.files("procrastinate") / "sql"
    if fresh:
        text = (folder / "schema.sql").read_text()
        yield f"procrastinate {procrastinate_version}", text


async def _applied(conn: Connection) -> dict[str, str]:
    rows = await (await conn.execute("SELECT name, sha256 FROM schema_migration")).fetchall()
    return {row["name"]: row["sha256"] for row in rows}


async def _run(conn: Connection, text: LiteralString) -> None:
    """Again where another database of the cluster just changed what belongs to all of them."""
    for patience in range(20, -1, -1):
        try:
            async with conn.transaction():
                await conn.execute(text)
        except errors.InternalError_ as error:
            if not patience or "concurrently updated" not in str(error):
                raise
        else:
            return


async def _scalar(conn: Connection, text: LiteralString) -> object:
    row = await (await conn.execute(text)).fetchone()
    return next(iter(row.values())) if row else None


async def require_current(conn: Connection) -> None:
    """Refuse an older or newer schema.

    Raises `SchemaOutdatedError`; every process calls this before it starts.
    """
    if await _scalar(conn, "SELECT to_regclass('schema_migration')") is None:
        raise SchemaOutdatedError("the database has no schema yet: run `paqett migrate`")
    done = {name for name in await _applied(conn) if not name.startswith("procrastinate")}
    known = set(migrations())
    if known - done:
        raise SchemaOutdatedError(f"the schema lacks {sorted(known - done)}: run `paqett migrate`")
    if done - known:
        raise SchemaOutdatedError(
            f"the schema has {sorted(done - known)}, which this program does not know: upgrade it"
        )
