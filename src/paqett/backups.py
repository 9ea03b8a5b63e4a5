"""A backup of the whole database in one file, and its return: pg_dump and pg_restore.

The roles are not in it, since they belong to the server: `paqett migrate` makes them, and grants
them what they need. Accounts' SQL logins are among them, so on another server they are made anew.
"""

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import LiteralString

import msgspec
from psycopg import conninfo, sql

from paqett import db, migrate
from paqett.db import Connection
from paqett.errors import ConfigurationError, PaqettError
from paqett.folders import sync_folder
from paqett.settings import Database
from paqett.sqlfiles import query

_NAME = re.compile(r"paqett-(\d{8}T\d{6}Z)\.dump")
_STAMP = "%Y%m%dT%H%M%SZ"


class BackupFailed(PaqettError):
    """pg_dump or pg_restore said so, in its own words."""


class Backup(msgspec.Struct, frozen=True):
    """One that is on disk; `removed` are older ones whose time was over."""

    file: str
    bytes: int
    removed: list[str]


class Restored(msgspec.Struct, frozen=True):
    """`replaced` is the name the database that was there before has now."""

    file: str
    database: str
    replaced: str | None


def make(settings: Database, folder: Path, now: datetime, kept: timedelta) -> Backup:
    """Write the database, as of one moment, into a new file of `folder`; whole or not at all.

    Backups in `folder` that are older than `kept` are removed afterwards. Raises `BackupFailed`,
    `OSError` and, where no pg_dump is to be found, `ConfigurationError`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"paqett-{now.astimezone(UTC):{_STAMP}}.dump"
    draft = file.with_suffix(".part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            _run(settings, "pg_dump", "--format=custom", "--no-acl", stdout=descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _list(settings, draft)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(file)
    sync_folder(folder)
    return Backup(str(file), file.stat().st_size, _remove_old(folder, now - kept))


def _remove_old(folder: Path, before: datetime) -> list[str]:
    removed = []
    for file in sorted(folder.iterdir()):
        made = _NAME.fullmatch(file.name)
        if made and datetime.strptime(made[1], _STAMP).replace(tzinfo=UTC) < before:
            file.unlink()
            removed.append(str(file))
    return removed


@asynccontextmanager
async def restoring(
    settings: Database, file: Path, now: datetime, *, replace: bool
) -> AsyncIterator[Restored]:
    """Bring the database of `settings` back as `file` has it; superusers alone may enter meanwhile.

    The database must not exist, or be empty. With `replace` one that does is kept under another
    name. Within the context the schema is this program's, and nobody else is let in before it ends.
    Raises `ConfigurationError` where any of this does not hold, `BackupFailed`, `psycopg.Error`.
    """
    wanted = conninfo.conninfo_to_dict(settings.url).get("dbname")
    name = str(wanted or "")
    _check(settings, file, name)
    server = Database(**{**msgspec.structs.asdict(settings), "url": _at(settings.url, "postgres")})
    async with await db.connect(server, "restore", autocommit=True) as conn:
        replaced = await _make_room(conn, name, now, replace=replace)
        await conn.execute(
            sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' CONNECTION LIMIT 0"
            ).format(sql.Identifier(name))
        )
        try:
            await _fill(settings, file, name)
            yield Restored(str(file), name, replaced)
        except BaseException:
            await _take_back(conn, name, replaced)
            raise
        await _limit(conn, name, -1)


def _check(settings: Database, file: Path, name: str) -> None:
    listed = _list(settings, file)
    of = re.search(r"^;\s+dbname: (.+)$", listed, re.MULTILINE)
    if of is None or of[1] != name:
        raise ConfigurationError(
            f"{file} is of a database called {of[1] if of else '?'}, and its roles are named after"
            f" it: restore it into one of that name, not into {name!r}"
        )


async def _make_room(conn: Connection, name: str, now: datetime, *, replace: bool) -> str | None:
    row = await _one(conn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    if not row:
        raise ConfigurationError("restoring needs a superuser's PAQETT_DATABASE__URL")
    if not await _one(conn, "SELECT true FROM pg_database WHERE datname = %s", name):
        return None
    if not replace:
        raise ConfigurationError(
            f"the database {name} exists: with --replace it is kept under another name"
        )
    old = f"{name}_until_{now.astimezone(UTC):{_STAMP}}".lower()
    await _limit(conn, name, 0)
    await conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
    )
    await conn.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(old))
    )
    return old


async def _fill(settings: Database, file: Path, name: str) -> None:
    async with await db.connect(settings, "restore", autocommit=True) as conn:
        await migrate.bootstrap(conn)
        await conn.execute("RESET ROLE")
        await conn.execute("SELECT timescaledb_pre_restore()")
    with NamedTemporaryFile("w", suffix=".list") as wanted:
        wanted.write(_without_superusers(_list(settings, file), name))
        wanted.flush()
        how = ("--no-acl", "--exit-on-error", f"--use-list={wanted.name}")
        _run(settings, "pg_restore", *how, str(file))
    async with await db.connect(settings, "restore", autocommit=True) as conn:
        await conn.execute("SELECT timescaledb_post_restore()")
        await migrate.migrate(conn)
        await conn.execute(query("unscoped_forget_missing_logins"))
        await conn.execute("ANALYZE")


def _without_superusers(listed: str, name: str) -> str:
    """The list without what `paqett migrate` makes as a superuser, functions and their trigger.

    It makes them anew, and on another server their owners are not there yet.
    """
    kept = []
    for line in listed.splitlines(keepends=True):
        is_others = " FUNCTION " in line and not line.endswith(f" {name}_owner\n")
        if not is_others and " TRIGGER public sql_login drop_role " not in line:
            kept.append(line)
    return "".join(kept)


def _list(settings: Database, file: Path) -> str:
    """What is in a backup, line by line. Raises `BackupFailed` where it is none."""
    return _run(settings, "pg_restore", "--list", str(file), connect=False)


async def _take_back(conn: Connection, name: str, replaced: str | None) -> None:
    """As it was before."""
    await conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    if replaced is not None:
        old, new = sql.Identifier(replaced), sql.Identifier(name)
        await conn.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))
        await _limit(conn, name, -1)


async def _limit(conn: Connection, name: str, most: int) -> None:
    """How many may be connected who are no superusers; -1: any number."""
    await conn.execute(
        sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(sql.Identifier(name), most)
    )


async def _one(conn: Connection, text: LiteralString, *values: str) -> object:
    row = await (await conn.execute(text, values)).fetchone()
    return next(iter(row.values())) if row else None


def _at(url: str, database: str) -> str:
    return conninfo.make_conninfo(url, dbname=database)


def _run(
    settings: Database,
    program: str,
    *arguments: str,
    connect: bool = True,
    stdout: int | None = None,
) -> str:
    """What it printed. The password goes by the environment, which only its own user can read."""
    environ = dict(os.environ)
    command = [_binary(program), *arguments]
    if connect:
        parts = conninfo.conninfo_to_dict(db.require_url(settings))
        environ["PGPASSWORD"] = str(parts.pop("password", "") or "")
        command += ["--dbname", conninfo.make_conninfo("", **parts)]
    done = subprocess.run(
        command, env=environ, check=False, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE if stdout is None else stdout,
    )  # fmt: skip
    if done.returncode:
        raise BackupFailed(f"{program}: {done.stderr.decode(errors='replace').strip()[-1000:]}")
    return (done.stdout or b"").decode(errors="replace")


def _binary(program: str) -> str:
    """The newest of Debian's, which reads every older server; else the one on the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3])
    )
    on_path = shutil.which(program)
    if not found and on_path is None:
        raise ConfigurationError(
            f"there is no {program} here: install PostgreSQL's client programs"
        )
    return str(found[-1]) if found else str(on_path)
