"""Bring a database to this program's schema: forward only, under one lock, again and again.

`sql/migrations/` run once each, in order of their names. `sql/hypertables/`, `sql/policies/` and
`sql/admin/` run every time and converge. procrastinate's own schema is applied from its package.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from typing import Any, LiteralString

import msgspec
from procrastinate import __version__ as procrastinate_version
from psycopg import errors, sql

from paqett.db import Connection
from paqett.errors import (
    ConfigurationError,
    MigrationStopped,
    SchemaBehindError,
    SchemaOutdatedError,
)
from paqett.settings import Database, sql_dir
from paqett.sqlfiles import script

_LOCK = 7061_0000
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""
# the column `needs` is as old as its migration
_APPLIED = """
SELECT name, sha256, to_jsonb(schema_migration) ->> 'needs' AS needs FROM schema_migration
"""
_LONGEST = """
SELECT application_name, extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 3
"""
_NEEDS = re.compile(r"^-- needs: (\S+)$", re.MULTILINE)
_QUEUE = "procrastinate "
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Patience(msgspec.Struct, frozen=True):
    """How long a migration may wait and work, in seconds.

    Whoever comes after a statement that waits for a lock waits behind it, so `lock_s` is short and
    what was not got is tried again, for `total_s` together. One statement may take `statement_s`.
    """

    lock_s: float = 2.0
    statement_s: float = 300.0
    total_s: float = 120.0

    @classmethod
    def of(cls, settings: Database) -> "Patience":
        """As the settings say."""
        return cls(
            settings.migrate_lock_timeout_s,
            settings.migrate_statement_timeout_s,
            settings.migrate_patience_s,
        )


def migrations() -> dict[str, LiteralString]:
    """Our own migrations, name → text, in the order they run."""
    return {
        path.stem: script("migrations", path.name)
        for path in sorted((sql_dir() / "migrations").glob("*.sql"))
    }


def needs(text: str) -> str | None:
    """The migration that a program must know to work beside the migration `text`; None for any."""
    found = _NEEDS.search(text)
    return found[1] if found else None


async def migrate(conn: Connection, patience: Patience | None = None) -> list[str]:
    """Do everything that is missing and return the names of the migrations applied.

    `conn` must be in autocommit mode and belong to a superuser, or to the owner of a database
    that already has the extension. Raises `ConfigurationError` where neither holds, for a database
    of another encoding than UTF8, or where an applied migration was edited; `MigrationStopped`
    where a step did not get its locks or took too long: what came before it is done, nothing of
    it is, and it can be run again.
    """
    patience = patience or Patience()
    _require_utf8(conn)
    await _be_alone(conn, patience)
    try:
        for name, seconds in (
            ("lock_timeout", patience.lock_s),
            ("statement_timeout", patience.statement_s),
        ):
            await conn.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds * 1000:.0f}"))
        superuser = await bootstrap(conn, patience)
        applied = await _apply_migrations(conn, patience)
        for folder in ("hypertables", "policies"):
            for path in sorted((sql_dir() / folder).glob("*.sql")):
                await _run(conn, folder, path.name, patience)
        for name in ("erasure.sql", "roles.sql", "grafana.sql", "operator.sql"):
            await _run(conn, "admin", name, patience)
        if superuser:
            await conn.execute("RESET ROLE")
            await _run(conn, "admin", "logins.sql", patience)
        return applied
    finally:
        if not conn.closed:
            await conn.execute("RESET ROLE; RESET lock_timeout; RESET statement_timeout")
            await conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _require_utf8(conn: Connection) -> None:
    """In SQL_ASCII, what `initdb` makes where no locale is set, texts would come as bytes."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the encoding of the database is {encoding}, not UTF8: make another with"
            " `createdb --encoding=UTF8 --template=template0`"
        )


async def _be_alone(conn: Connection, patience: Patience) -> None:
    """Two that migrate at once do so one after the other."""

    async def take() -> None:
        row = await (
            await conn.execute("SELECT pg_try_advisory_lock(%s) AS alone", (_LOCK,))
        ).fetchone()
        if not row or not row["alone"]:
            raise errors.LockNotAvailable("another `paqett migrate` is at work")

    await _patiently(conn, "the migration", take, patience)


async def bootstrap(conn: Connection, patience: Patience | None = None) -> bool:
    """Do what only a superuser can, where this is one, and go on as the owner; whether it is.

    `conn` is in autocommit mode. Raises `ConfigurationError` where somebody else must do it first.
    """
    superuser = bool(
        await _scalar(conn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    )
    if superuser:
        await _run(conn, "admin", "bootstrap.sql", patience or Patience())
        owner = sql.Identifier(f"{await _scalar(conn, 'SELECT current_database()')}_owner")
        await conn.execute(sql.SQL("SET ROLE {}").format(owner))
    elif not await _scalar(conn, "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"):
        raise ConfigurationError(
            "the database has no timescaledb extension and this role may not create it: run"
            " `paqett migrate` once with a superuser's PAQETT_DATABASE__URL"
        )
    return superuser


async def _apply_migrations(conn: Connection, patience: Patience) -> list[str]:
    await conn.execute(_TABLE)
    done = {name: row["sha256"] for name, row in (await _applied(conn)).items()}
    applied = []
    for name, text in _steps(done):
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name in done:
            if not name.startswith(_QUEUE) and done[name] != digest:
                raise ConfigurationError(f"the migration {name} was edited after it was applied")
            continue
        await _patiently(conn, name, _step(conn, name, text, digest), patience)
        applied.append(name)
    return applied


def _step(
    conn: Connection, name: str, text: LiteralString, digest: str
) -> Callable[[], Awaitable[None]]:
    async def apply() -> None:
        async with conn.transaction():
            await conn.execute(text)
            await conn.execute(
                "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", (name, digest)
            )
            if needs(text):
                await conn.execute(
                    "UPDATE schema_migration SET needs = %s WHERE name = %s", (needs(text), name)
                )

    return apply


def _steps(done: dict[str, str]) -> Iterator[tuple[str, LiteralString]]:
    yield from migrations().items()
    folder = resources.files("procrastinate") / "sql"
    queue = [name.removeprefix(_QUEUE) for name in done if name.startswith(_QUEUE)]
    begun_with = next((version for version in queue if "_" not in version), None)
    if begun_with is None:
        text = (folder / "schema.sql").read_text()
        yield f"{_QUEUE}{procrastinate_version}", text
        return
    for path in sorted((folder / "migrations").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".sql") and _version(path.name) > _version(begun_with):
            yield f"{_QUEUE}{path.name.removesuffix('.sql')}", path.read_text()


def _version(text: str) -> tuple[int, ...]:
    """`3.10.0` as well as `03.10.00_01_pre_what_it_does.sql`."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("_")[0]))


async def _applied(conn: Connection) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in await (await conn.execute(_APPLIED)).fetchall()}


async def _run(conn: Connection, folder: str, name: str, patience: Patience) -> None:
    async def run() -> None:
        async with conn.transaction():
            await conn.execute(script(folder, name))

    await _patiently(conn, f"{folder}/{name}", run, patience)


async def _patiently(
    conn: Connection, what: str, step: Callable[[], Awaitable[None]], patience: Patience
) -> None:
    """Again while somebody else is in the way. Raises `MigrationStopped`."""
    deadline, pause_s = time.monotonic() + patience.total_s, _SHORTEST_PAUSE_S
    while True:
        try:
            return await step()
        except errors.QueryCanceled as error:
            raise MigrationStopped(
                f"{what}: a statement took longer than {patience.statement_s:g} s and was undone;"
                " raise database.migrate_statement_timeout_s and run `paqett migrate` again"
            ) from error
        except (errors.LockNotAvailable, errors.DeadlockDetected, errors.InternalError_) as error:
            if not _passes(error):
                raise
            if time.monotonic() > deadline:
                raise MigrationStopped(
                    f"{what}: gave up after {patience.total_s:g} s ({str(error).strip()});"
                    f" {await _who_is_there(conn)}; run `paqett migrate` again"
                ) from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _passes(error: errors.Error) -> bool:
    """Roles and rights belong to all databases of a cluster, and cannot wait for one another."""
    return not isinstance(error, errors.InternalError_) or "concurrently updated" in str(error)


async def _who_is_there(conn: Connection) -> str:
    """The transactions that are open the longest: most likely the one in the way is among them."""
    await conn.execute("RESET ROLE")  # the owner sees nobody's but its own
    rows = await (await conn.execute(_LONGEST)).fetchall()
    longest = [f"{row['application_name'] or 'unnamed'} for {row['seconds']} s" for row in rows]
    return f"open transactions: {', '.join(longest) or 'none that can be seen'}"


async def _scalar(conn: Connection, text: LiteralString) -> object:
    row = await (await conn.execute(text)).fetchone()
    return next(iter(row.values())) if row else None


async def require_current(conn: Connection) -> list[str]:
    """The schema's migrations that are newer than this program, which can work with them.

    Raises `SchemaBehindError` where the schema lacks some of this program's, `SchemaOutdatedError`
    where a newer one needs a newer program. Every process asks before it starts.
    """
    if await _scalar(conn, "SELECT to_regclass('schema_migration')") is None:
        raise SchemaBehindError("the database has no schema yet: run `paqett migrate`")
    done = {name: row for name, row in (await _applied(conn)).items() if name[0].isdigit()}
    known = set(migrations())
    if known - done.keys():
        raise SchemaBehindError(
            f"the schema lacks {sorted(known - done.keys())}: run `paqett migrate`"
        )
    newer = sorted(done.keys() - known)
    too_new = [name for name in newer if done[name]["needs"] not in {None, *known}]
    if too_new:
        raise SchemaOutdatedError(
            f"the schema has {too_new}, which this program is too old for: upgrade it"
        )
    return newer
