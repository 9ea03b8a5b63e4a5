"""A backup brings everything back to its last reading, but nobody who was erased since."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from paqett import backups, doctor, migrate
from paqett.backups import BackupFailed
from paqett.errors import ConfigurationError
from support import Tenant, at, in_database, make_tenant, own_cluster, with_url

NOW = datetime.now(UTC)
VERIFIER = f"SCRAM-SHA-256$4096:{'A' * 22}==${'A' * 43}=:{'A' * 43}="
Rows = list[tuple[Any, ...]]


class Installation:
    """The command line on the test's own database and folder."""

    def __init__(self, url: str, folder: Path, paqett: str) -> None:
        self.url, self.folder, self.paqett = url, folder, paqett
        self.name = url.rpartition("/")[2]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "PAQETT_DATABASE__URL": self.url,
            "PAQETT_PAQETT__DATA_DIR": str(self.folder),
        }
        return subprocess.run(
            [self.paqett, "admin", *arguments],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def told(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def rows(self, statement: str, *values: Any) -> Rows:
        with psycopg.connect(self.url) as conn:
            found = conn.execute(statement, values)  # type: ignore[call-overload]
            return list(found.fetchall()) if found.description else []

    def readings(self) -> Rows:
        return self.rows(
            "SELECT account_id, series_id, time, value::text FROM telemetry_own UNION ALL"
            " SELECT account_id, series_id, time, value FROM telemetry_own_text ORDER BY 2, 3"
        )


@pytest.fixture
def here(
    bare_database_url: str, server_url: str, tmp_path: Path, paqett: str
) -> Iterator[Installation]:
    here = Installation(bare_database_url, tmp_path, paqett)
    in_database(here.url, migrate.migrate)
    yield here
    with psycopg.connect(server_url, autocommit=True) as conn:
        kept = conn.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)",
            (f"{here.name}_until",),
        ).fetchall()
        for (name,) in kept:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def owner(here: Installation) -> Tenant:
    return make_tenant(here.url, "owner")


@pytest.fixture
def attacker(here: Installation) -> Tenant:
    return make_tenant(here.url, "attacker")


def send(here: Installation, tenant: Tenant, first: int, last: int) -> None:
    """Readings an hour apart, over several chunks; numbers and texts."""
    number, text = (
        here.rows(
            "INSERT INTO series (account_id, device_id, metric, kind) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (device_id, metric) DO UPDATE SET kind = EXCLUDED.kind RETURNING id",
            tenant.account_id, tenant.devices[0], kind, kind,
        )[0][0]
        for kind in ("number", "text")
    )  # fmt: skip
    for table, series in (("telemetry_own", number), ("telemetry_own_text", text)):
        here.rows(
            f"INSERT INTO {table} (time, account_id, series_id, value)"
            " SELECT %s::timestamptz - n * interval '1 hour', %s, %s, n"
            " FROM generate_series(%s::int, %s::int) AS n",
            NOW, tenant.account_id, series, first, last,
        )  # fmt: skip


def test_what_is_restored_is_what_there_was(here, owner, attacker) -> None:
    send(here, owner, 1, 60)
    send(here, attacker, 1, 5)
    before, accounts = here.readings(), here.rows("SELECT * FROM account ORDER BY id")
    made = here.told("backup")
    assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
    assert made["bytes"] == Path(made["file"]).stat().st_size
    send(here, owner, 61, 70)

    told = here.told("restore", made["file"], "--replace")

    assert told["database"] == here.name
    assert here.readings() == before
    assert here.rows("SELECT * FROM account ORDER BY id") == accounts
    assert here.rows("SELECT count(*) FROM show_chunks('telemetry_own')")[0][0] >= 3
    kept = psycopg.conninfo.make_conninfo(here.url, dbname=told["replaced"])
    with psycopg.connect(kept) as conn:
        assert conn.execute("SELECT count(*) FROM telemetry_own").fetchone() == (75,)
    findings = in_database(here.url, lambda conn: doctor.examine(conn, datetime.now(UTC)))
    assert {finding.state for finding in findings} == {"ok"}
    send(here, owner, 71, 80)  # it goes on: chunks are made, and numbers follow the last
    with psycopg.connect(here.url) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{here.name}_api")))
        assert conn.execute("SELECT count(*) FROM telemetry_own").fetchone() == (75,)


def test_it_comes_back_on_another_server_too(here, owner) -> None:
    send(here, owner, 1, 30)
    with psycopg.connect(here.url) as conn:
        conn.execute("SELECT create_sql_login(%s, %s, 30)", (owner.account_id, VERIFIER))
    before, made = here.readings(), here.told("backup")
    with contextmanager(own_cluster)() as server:
        there = Installation(at(server, here.name), here.folder, here.paqett)
        told = there.told("restore", made["file"])
        assert told["replaced"] is None
        assert there.readings() == before
        assert there.rows("SELECT count(*) FROM sql_login") == [(0,)]  # its role is not here
        findings = in_database(there.url, lambda conn: doctor.examine(conn, datetime.now(UTC)))
        assert {finding.state for finding in findings} == {"ok"}


def test_whoever_was_erased_since_is_erased_again(here, owner, attacker) -> None:
    send(here, owner, 1, 5)
    send(here, attacker, 1, 5)
    made = here.told("backup")
    here.told("erase", str(owner.account_id), "--now")
    folder = here.folder / "backup"
    row = here.rows("SELECT created_at FROM account WHERE id = %s", owner.account_id)[0]
    stone = {"at": NOW.isoformat(), "account": owner.account_id, "made_at": row[0].isoformat()}
    (folder / "erasures.ndjson").write_text(json.dumps(stone) + "\n")

    told = here.told("restore", made["file"], "--replace")

    assert told["erased_again"] == {"known": 1, "accounts": 1, "devices": 0}
    assert {row[0] for row in here.readings()} == {attacker.account_id}
    assert here.rows("SELECT id FROM account") == [(attacker.account_id,)]


def test_a_database_that_is_there_is_not_touched_unasked(here, owner) -> None:
    made = here.told("backup")
    done = here.run("restore", made["file"])
    assert done.returncode == 2
    assert "--replace" in done.stderr
    assert here.rows("SELECT count(*) FROM account") == [(1,)]


def test_where_a_restore_fails_everything_is_as_it_was(here, owner, monkeypatch) -> None:
    made = here.told("backup")
    real = backups._run

    def failing(settings, program, *arguments, **how):
        if "--exit-on-error" in arguments:
            raise BackupFailed("pg_restore: no space left on device")
        return real(settings, program, *arguments, **how)

    monkeypatch.setattr(backups, "_run", failing)

    async def restore(_: Any) -> None:
        settings = with_url(here.url).database
        async with backups.restoring(settings, Path(made["file"]), NOW, replace=True):
            pytest.fail("it was not restored")

    with pytest.raises(BackupFailed, match="no space"):
        in_database(at(here.url, "postgres"), restore)
    assert here.rows("SELECT count(*) FROM account") == [(1,)]
    limit = "SELECT datconnlimit FROM pg_database WHERE datname = current_database()"
    assert here.rows(limit) == [(-1,)]


def test_rubbish_and_others_backups_are_refused(here, owner, tmp_path) -> None:
    rubbish = tmp_path / "rubbish.dump"
    rubbish.write_bytes(b"PGDMP" + os.urandom(200))
    for file in (rubbish, tmp_path / "missing.dump"):
        done = here.run("restore", str(file), "--replace")
        assert done.returncode == 1
        assert "pg_restore" in done.stderr
    settings = with_url(at(here.url, "elsewhere")).database
    made = here.told("backup")

    async def restore(_: Any) -> None:
        async with backups.restoring(settings, Path(made["file"]), NOW, replace=False):
            pytest.fail("it was restored")

    with pytest.raises(ConfigurationError, match=here.name):
        in_database(here.url, restore)


def test_a_backup_that_fails_leaves_nothing_behind(bare_database_url, tmp_path) -> None:
    settings = with_url(at(bare_database_url, "missing")).database
    with pytest.raises(BackupFailed, match="missing"):
        backups.make(settings, tmp_path / "b", NOW, timedelta(days=7))
    assert list((tmp_path / "b").iterdir()) == []


def test_old_backups_go_and_nothing_else(bare_database_url, tmp_path) -> None:
    folder = tmp_path / "b"
    for days in (0, 6, 8):
        moment = NOW - timedelta(days=days)
        made = backups.make(
            with_url(bare_database_url).database, folder, moment, timedelta(days=100)
        )
        assert made.removed == []
    (folder / "erasures.ndjson").write_text("")
    made = backups.make(
        with_url(bare_database_url).database, folder, NOW + timedelta(seconds=1), timedelta(days=7)
    )
    assert len(made.removed) == 1
    assert len(list(folder.glob("*.dump"))) == 3
    assert (folder / "erasures.ndjson").exists()


def test_the_password_stands_in_no_command_line(bare_database_url, monkeypatch, tmp_path) -> None:
    seen: list[list[str]] = []
    real = subprocess.run

    def look(command, **how):
        seen.append(command)
        return real(command, **how)

    monkeypatch.setattr(backups.subprocess, "run", look)
    backups.make(with_url(bare_database_url).database, tmp_path / "b", NOW, timedelta(days=7))
    password = psycopg.conninfo.conninfo_to_dict(bare_database_url)["password"]
    assert seen
    assert all(str(password) not in word for command in seen for word in command)
