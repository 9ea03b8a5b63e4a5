"""Export All My Data: everything of one account, of one moment, and nobody else's."""

import asyncio
import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from paqett import accounts, app, db, folders, jobs, migrate, register, sqlfiles
from paqett.exports import archive, contents, readings, records
from paqett.exports.archive import Archive, Description, DiskFull
from paqett.settings import load
from paqett.worker import exports as worker
from paqett.worker import process
from people import Person, new_person
from support import in_database, make_tenant

REGISTER = register.load()
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
NASTY = 'a "metric", with\\ß'


@pytest.fixture
def exporter(make_api: Callable[..., Any], tmp_path: Path) -> Any:
    """An API and a worker with a folder in common, and free plans beside own ones."""

    def make(**environ: str) -> Any:
        return make_api(PAQETT_PAQETT__DATA_DIR=str(tmp_path / "data"), **environ)

    return make


async def work(api: Any, again: int = 1) -> None:
    """A worker works until no job is due, `again` times over."""
    async with app.services(api.settings, "test", api.now) as services:
        queue = jobs.app(api.settings.database)
        async with queue.open_async():
            process.register(queue, services)
            for _ in range(again):
                await process.work(queue, services, wait=False)


async def look_after(api: Any) -> None:
    async with app.services(api.settings, "test", api.now) as services:
        await worker.look_after(services)


def files_in(api: Any) -> list[str]:
    return sorted(path.name for path in api.settings.export_dir.glob("*"))


async def exported(api: Any, person: Person, form: str = "ndjson") -> zipfile.ZipFile:
    """Ask, wait, fetch."""
    asked = await person.ask("POST", "/account/exports", json={"format": form})
    assert asked.status_code == 202, asked.text
    await work(api)
    got = (await person.ask("GET", f"/account/exports/{asked.json()['id']}")).json()
    assert (got["status"], got["progress"]) == ("ready", 1)
    answer = await person.ask("GET", f"/account/exports/{got['id']}/download")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    assert len(answer.content) == got["bytes"]
    assert hashlib.sha256(answer.content).hexdigest() == got["sha256"]
    return zipfile.ZipFile(io.BytesIO(answer.content))


def read(zipped: zipfile.ZipFile, stem: str) -> list[dict[str, Any]]:
    names = {Path(name).stem: name for name in zipped.namelist()}
    text = zipped.read(names[stem]).decode()
    if names[stem].endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text)))
    return [json.loads(line) for line in text.splitlines()]


def fill(url: str, account: int, device: str, mark: str) -> None:
    """A row in every table of the register that an account may have rows in."""
    rows = {
        "series": "(account_id, device_id, metric, kind) VALUES (%(a)s, %(d)s, %(m)s, 'number')",
        "device_event": (
            "(account_id, device_id, time, kind, reason, ip) VALUES (%(a)s, %(d)s, now(),"
            " 'connected', %(m)s, '192.0.2.1')"
        ),
        "usage_hour": "(account_id, device_id, hour) VALUES (%(a)s, %(d)s, now())",
        "allowance": "(account_id, day, points, writer) VALUES (%(a)s, now(), 1, %(m)s)",
        "rejection_hour": (
            "(account_id, device_id, hour, code, points) VALUES (%(a)s, %(d)s, now(), %(m)s, 1)"
        ),
        "rejection": (
            "(account_id, device_id, hour, code, time, topic, detail, payload, payload_bytes)"
            " VALUES (%(a)s, %(d)s, now(), 'bad_ts', now(), 't', %(m)s, '\\x7bff', 2)"
        ),
        "notice": (
            "(account_id, kind, event, data) VALUES (%(a)s, 'usage', 'quota_near',"
            " jsonb_build_object('mark', %(m)s::text))"
        ),
        "mail_day": "(account_id, day, mails) VALUES (%(a)s, now(), 3)",
        "notification_preference": "(account_id, kind, mail) VALUES (%(a)s, 'usage', false)",
        "move": "(account_id, begun_at, carried_to, until) VALUES (%(a)s, now(), now(), now())",
        "usage_warning": "(account_id, day, level) VALUES (%(a)s, now(), 80)",
        "view": (
            "(account_id, name, shown, created_at, changed_at)"
            " VALUES (%(a)s, %(m)s, 's=it', now(), now())"
        ),
        "api_key": (
            "(account_id, name, hint, hash, scopes) VALUES (%(a)s, %(m)s, 'pqt_x',"
            " %(m)s::bytea, '{export}')"
        ),
        "api_usage_day": "VALUES (%(a)s, now(), 0, 1, 2, 3)",
        "identity": (
            "(provider, subject, account_id, email, created_at, last_used_at)"
            " VALUES ('github', %(m)s, %(a)s, %(m)s, now(), now())"
        ),
        "account_token": (
            "(hash, account_id, purpose, email, created_at, expires_at) VALUES (%(m)s::bytea,"
            " %(a)s, 'reset_password', %(m)s, now(), now() + '1 h')"
        ),
        "alert_rule": (
            "(account_id, name, kind, for_s, created_at, changed_at) VALUES (%(a)s, %(m)s,"
            " 'offline', 0, now(), now())"
        ),
        "alert": (
            "(account_id, rule_name, kind, device_id, state, since, reason) VALUES (%(a)s, %(m)s,"
            " 'offline', %(d)s, 'resolved', now(), 'x')"
        ),
        "channel": (
            "(account_id, name, url, secret, created_at) VALUES (%(a)s, %(m)s, 'https://x/',"
            " %(m)s || '-signs', now())"
        ),
        "delivery": (
            "(account_id, channel_id, event) SELECT %(a)s, id, 'test' FROM channel"
            " WHERE account_id = %(a)s"
        ),
        "sql_login": "(account_id, role) VALUES (%(a)s, %(m)s)",
        "subscription": (
            "(account_id, customer_key, customer_id) VALUES (%(a)s, %(m)s || '-key', %(m)s)"
        ),
    }  # fmt: skip
    with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as conn:
        for table, values in rows.items():
            conn.execute(f"INSERT INTO {table} {values}", {"a": account, "d": device, "m": mark})


def with_readings(url: str, account: int, device: str, series: dict[str, str]) -> dict[str, int]:
    """Series by metric; `series` gives each its kind."""
    with psycopg.connect(url) as conn:
        made = {}
        for metric, kind in series.items():
            row = conn.execute(
                "INSERT INTO series (account_id, device_id, metric, kind, mixed)"
                " VALUES (%s, %s, %s, %s, %s) RETURNING id",
                (account, device, metric, kind.removeprefix("mixed "), kind.startswith("mixed")),
            ).fetchone()
            assert row is not None
            made[metric] = row[0]
    return made


def store(url: str, table: str, account: int, rows: list[tuple[datetime, int, Any]]) -> None:
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (time, account_id, series_id, value) VALUES (%s, %s, %s, %s)",
            [(time, account, series, value) for time, series, value in rows],
        )


def account_of(url: str, email: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT id FROM account WHERE email = %s", (email,)).fetchone()
    assert row is not None
    return int(row[0])


def device_of(url: str, account: int) -> str:
    with psycopg.connect(url) as conn:
        conn.execute(
            "INSERT INTO device (id, account_id, thing_name, verifier, mac_address)"
            " VALUES (%s, %s, 'thing', 'verifies', '08:00:2b:01:02:03')",
            (f"dev{account}", account),
        )
    return f"dev{account}"


def test_an_archive_holds_every_row_of_the_account_and_nobody_elses(
    exporter, attacker, database_url
) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> zipfile.ZipFile:
        person = await new_person(client, api.settings)
        account = account_of(database_url, person.email)
        fill(database_url, account, device_of(database_url, account), "mine-of-ada")
        fill(database_url, attacker.account_id, attacker.devices[0], "theirs-alone")
        return await exported(api, person)

    async def run() -> zipfile.ZipFile:
        async with api.open() as client:
            return await ask(client)

    zipped = asyncio.run(run())
    assert zipped.testzip() is None
    account = account_of(database_url, "ada@example.org")
    everything = b"".join(zipped.read(name) for name in zipped.namelist())
    assert b"mine-of-ada" in everything
    for others in (b"theirs-alone", b"attacker@example.org", attacker.devices[0].encode()):
        assert others not in everything
    for secret in (b"-signs", b"mine-of-ada-key", b"verifies", b"$argon2"):
        assert secret not in everything
    with psycopg.connect(database_url) as conn:
        for table in contents.tables(REGISTER):
            key = "id" if table.name == "account" else "account_id"
            row = conn.execute(f"SELECT count(*) FROM {table.name} WHERE {key} = %s", (account,))
            (count,) = row.fetchone() or (0,)
            found = read(zipped, str(table.export))
            # what tells that the archive is ready is not in it
            later = table.name in ("notice", "delivery")
            assert len(found) == count - later, table.name
            assert found, table.name
            assert list(found[0]) == [
                column for column in table.columns if column not in table.withheld
            ]
    (device,) = read(zipped, "devices")
    assert device["mac_address"] == "08:00:2b:01:02:03"
    (example,) = read(zipped, "rejection_examples")
    assert example["payload"] == "{\\xff"


def test_the_manifest_and_the_readme_say_what_there_is(exporter, database_url) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> zipfile.ZipFile:
        person = await new_person(client, api.settings)
        account = account_of(database_url, person.email)
        fill(database_url, account, device_of(database_url, account), "mark")
        return await exported(api, person)

    async def run() -> zipfile.ZipFile:
        async with api.open() as client:
            return await ask(client)

    zipped = asyncio.run(run())
    manifest = json.loads(zipped.read("manifest.json"))
    files = {file["name"]: file for file in manifest["files"]}
    assert {*files, "manifest.json", "README.txt"} == set(zipped.namelist())
    assert manifest["rows"] == sum(file["rows"] for file in files.values())
    for name, file in files.items():
        data = zipped.read(name)
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert (len(data), len(data.splitlines())) == (file["bytes"], file["rows"])
        for line in data.splitlines():
            assert list(json.loads(line)) == list(file["columns"])
    assert files["account.ndjson"]["withheld"].keys() == {"password_hash", "unsubscribe_secret"}
    readme = zipped.read("README.txt").decode()
    assert "ada@example.org" in readme
    for name in files:
        assert f"\n{name}: " in readme
    assert zipped.getinfo("account.ndjson").external_attr >> 16 == 0o600


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("piece", [100_000, 3])
def test_readings_can_be_built_again_from_the_archive(
    exporter, database_url, monkeypatch, form: str, piece: int
) -> None:
    """In both tiers of an open move, numbers, booleans and texts, to the microsecond.

    What the tier that is left may not show any more does not come back; what came late to the new
    one may be older.
    """
    monkeypatch.setattr(readings, "_NUMBERS_AT_ONCE", piece)
    monkeypatch.setattr(readings, "_TEXTS_AT_ONCE", piece)
    monkeypatch.setattr(readings, "_SERIES_AT_ONCE", 1 if piece == 3 else 500)
    api = exporter()
    days = [MIDNIGHT - timedelta(days=days) for days in (3, 2, 1, 0)]
    kinds = {
        "t": "number", "on": "boolean", "said": "text", NASTY: "number", "either": "mixed number",
    }  # fmt: skip

    def put(account: int, device: str) -> set[tuple[Any, ...]]:
        oldest, late = days[0] + timedelta(hours=1), days[0] - timedelta(days=1)
        with psycopg.connect(database_url) as conn:
            conn.execute(
                "UPDATE account SET moving_from = 'paid', readable_from = %s WHERE id = %s",
                (oldest, account),
            )
        series = with_readings(database_url, account, device, kinds)
        named = {number: metric for metric, number in series.items()}
        expected = set()
        for table, when in (("telemetry_paid", days[:2]), ("telemetry_own", [late, *days[2:]])):
            numbers, texts = [], []
            for day in when:
                for n in range(5):
                    at = day + timedelta(hours=n, microseconds=n * 333_333)
                    numbers.append((at, series["t"], 20 + n / 7))
                    numbers.append((at, series["on"], float(n % 2)))
                    numbers.append((at, series[NASTY], 1e300 * n))
                    numbers.append((at, series["either"], -0.5))
                    texts.append((at, series["said"], f'öl, "{n}"\n'))
                    texts.append((at, series["either"], "on"))
            store(database_url, table, account, numbers)
            store(database_url, f"{table}_text", account, texts)
            expected |= {
                (at, device, named[number], value)
                for at, number, value in [*numbers, *texts]
                if at >= oldest or table == "telemetry_own"
            }
        return expected

    async def run() -> tuple[zipfile.ZipFile, set[tuple[Any, ...]]]:
        async with api.open() as client:
            person = await new_person(client, api.settings)
            account = account_of(database_url, person.email)
            expected = put(account, device_of(database_url, account))
            return await exported(api, person, form), expected

    zipped, expected = asyncio.run(run())
    found = [*read(zipped, "readings"), *read(zipped, "readings_text")]
    assert {tuple(row) for row in found} == {("time", "device", "metric", "value")}

    def value(row: dict[str, Any], *, text: bool) -> Any:
        if text:
            return row["value"]
        if kinds[row["metric"]] == "boolean":
            assert row["value"] in (True, False, "true", "false")
            return float(row["value"] in (True, "true"))
        return float(row["value"])

    rebuilt = [
        (datetime.fromisoformat(row["time"]), row["device"], row["metric"], value(row, text=text))
        for stem, text in (("readings", False), ("readings_text", True))
        for row in read(zipped, stem)
    ]
    assert set(rebuilt) == expected
    assert len(rebuilt) == len(expected)


def test_an_archive_is_of_one_moment(database_url, owner) -> None:
    settings = load({"PAQETT_DATABASE__URL": database_url})

    async def run() -> tuple[int, int]:
        async with (
            await db.connect(settings.database, "a", autocommit=True) as holding,
            await db.connect(settings.database, "b", autocommit=True) as reading,
            db.snapshot(holding) as held,
        ):
            make_tenant(database_url, "later")
            counted = []
            for _ in range(2):
                async with db.as_of(reading, held) as conn:
                    rows = await conn.execute("SELECT count(*) AS n FROM account")
                    counted.append((await rows.fetchone() or {})["n"])
                with psycopg.connect(database_url) as conn:
                    conn.execute("SET lock_timeout = '1s'")
                    conn.execute("ALTER TABLE account ADD x int")  # no table is locked meanwhile
                    conn.execute("ALTER TABLE account DROP x")
            return counted[0], counted[1]

    assert asyncio.run(run()) == (1, 1)


def test_the_plans_exports_a_day_are_held(exporter, database_url) -> None:
    api = exporter(PAQETT_PAQETT__DEFAULT_PLAN="free")

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        assert (await person.ask("POST", "/account/exports")).status_code == 202
        refused = await person.ask("POST", "/account/exports")
        assert (refused.status_code, refused.json()["code"]) == (429, "export_limit")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        with psycopg.connect(database_url) as conn:  # one that failed is not held against anybody
            conn.execute("UPDATE export SET status = 'failed'")
        assert (await person.ask("POST", "/account/exports")).status_code == 202
        await work(api)
        api.later(timedelta(days=1))
        assert (await person.sign_in()).status_code == 200
        assert (await person.ask("POST", "/account/exports")).status_code == 202

    api.run(ask)


def test_one_export_at_a_time_and_all_are_listed(exporter) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        first = (await person.ask("POST", "/account/exports")).json()
        assert (first["status"], first["format"]) == ("waiting", "ndjson")
        path = f"/account/exports/{first['id']}/download"
        early = await person.ask("GET", path)
        assert (early.status_code, early.json()["code"]) == (409, "export_not_ready")
        refused = await person.ask("POST", "/account/exports")
        assert (refused.status_code, refused.json()["code"]) == (409, "export_in_progress")
        await work(api)
        second = await person.ask("POST", "/account/exports", json={"format": "csv"})
        assert second.status_code == 202
        page = (await person.ask("GET", "/account/exports?limit=1")).json()
        assert [item["format"] for item in page["items"]] == ["csv"]
        rest = await person.ask("GET", f"/account/exports?cursor={page['next_cursor']}")
        assert [item["id"] for item in rest.json()["items"]] == [first["id"]]
        for body in ({"format": "xml"}, {"format": "csv", "to": "me"}, []):
            wrong = await person.ask("POST", "/account/exports", json=body)
            assert wrong.status_code == 422
        notices = (await person.ask("GET", "/notices?kind=export")).json()["items"]
        assert [notice["event"] for notice in notices] == ["export_ready"]

    api.run(ask)


def test_the_processes_roles_may_do_their_parts(bare_database_url, tmp_path) -> None:
    in_database(bare_database_url, migrate.migrate)
    name = bare_database_url.rpartition("/")[2]
    with psycopg.connect(bare_database_url, autocommit=True) as conn:
        for role in ("api", "worker"):
            conn.execute(f"ALTER ROLE \"{name}_{role}\" PASSWORD 'x'")
    tenant = make_tenant(bare_database_url, "ada")
    fill(bare_database_url, tenant.account_id, tenant.devices[0], "mark")
    host = bare_database_url.partition("@")[2]

    def as_role(role: str) -> Any:
        return load(
            {
                "PAQETT_DATABASE__URL": f"postgresql://{name}_{role}:x@{host}",
                "PAQETT_PAQETT__DATA_DIR": str(tmp_path),
            }
        )

    async def ask() -> None:
        async with (
            app.services(as_role("api"), "test") as services,
            db.transaction(services.pool) as conn,
        ):
            account = await accounts.find(conn, str(tenant.account_id))
            await records.request(conn, account, services.plans["free"], "csv", app.utc_now())
        async with app.services(as_role("worker"), "test") as services:
            queue = jobs.app(services.settings.database)
            async with queue.open_async():
                process.register(queue, services)
                await process.work(queue, services, wait=False, queues=[jobs.EXPORTS])
            await worker.look_after(services)

    asyncio.run(ask())
    with psycopg.connect(bare_database_url) as conn:
        assert conn.execute("SELECT status FROM export").fetchall() == [("ready",)]
        conn.execute(f'SET ROLE "{name}_worker"')
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT hash FROM api_key")


def test_a_disabled_account_exports_and_only_after_a_fresh_proof(exporter, database_url) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        with psycopg.connect(database_url) as conn:
            conn.execute("UPDATE account SET disabled_at = now()")
        assert (await person.ask("GET", "/devices")).json()["code"] == "account_disabled"
        made = (await person.ask("POST", "/account/exports")).json()
        await work(api)
        path = f"/account/exports/{made['id']}"
        assert (await person.ask("GET", f"{path}/download")).status_code == 200
        api.later(timedelta(hours=1))
        for method, late in (("GET", f"{path}/download"), ("POST", "/account/exports")):
            refused = await person.ask(method, late)
            assert (refused.status_code, refused.json()["code"]) == (
                403, "reauthentication_required",
            )  # fmt: skip
        assert (await person.ask("GET", path)).status_code == 200

    api.run(ask)


def test_a_download_can_be_resumed(exporter) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/account/exports")).json()
        await work(api)
        path = f"/account/exports/{made['id']}/download"
        whole = await person.ask("GET", path)
        size, tag = len(whole.content), whole.headers["etag"]
        for asked, part in (
            ("bytes=0-9", whole.content[:10]),
            ("bytes=10-", whole.content[10:]),
            ("bytes=-5", whole.content[-5:]),
            (f"bytes={size - 1}-{size + 99}", whole.content[-1:]),
        ):
            answer = await person.ask("GET", path, headers={"Range": asked, "If-Range": tag})
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{size}")
        for headers in (
            {"Range": "lines=1-2"}, {"Range": "bytes=9-3"}, {"Range": "bytes=-"},
            {"Range": "bytes=0-9", "If-Range": '"other"'},
        ):  # fmt: skip
            answer = await person.ask("GET", path, headers=headers)
            assert (answer.status_code, len(answer.content)) == (200, size)
        behind = await person.ask("GET", path, headers={"Range": f"bytes={size}-"})
        assert (behind.status_code, behind.json()["code"]) == (416, "range_not_satisfiable")

    api.run(ask)


def test_an_archive_is_removed_after_seven_days(exporter) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/account/exports")).json()
        await work(api)
        path = f"/account/exports/{made['id']}"
        folder = api.settings.export_dir
        assert folder.stat().st_mode & 0o777 == 0o700
        (file,) = folder.glob("*")
        assert file.stat().st_mode & 0o777 == 0o600
        api.later(timedelta(days=7, seconds=-5))
        await look_after(api)
        assert (await person.sign_in()).status_code == 200
        assert (await person.ask("GET", f"{path}/download")).status_code == 200
        api.later(timedelta(seconds=10))
        expired = await person.ask("GET", f"{path}/download")  # before the worker has looked
        assert (expired.status_code, expired.json()["code"]) == (410, "export_expired")
        await look_after(api)
        assert files_in(api) == []
        assert (await person.ask("GET", path)).json()["status"] == "expired"
        assert (await person.ask("GET", f"{path}/download")).status_code == 410
        api.later(timedelta(days=394))
        await look_after(api)
        assert (await person.sign_in()).status_code == 200
        assert (await person.ask("GET", path)).status_code == 404

    api.run(ask)


def test_a_worker_killed_in_the_midst_leaves_nothing_and_the_next_one_finishes(
    exporter, database_url
) -> None:
    api = exporter()

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/account/exports")).json()
        account = account_of(database_url, person.email)
        folder = folders.open_folder(api.settings.export_dir)
        (folder / f"{account}-{made['id']}.0a0b.part").write_text("half")  # as a kill leaves it
        with psycopg.connect(database_url) as conn:
            conn.execute("UPDATE export SET status = 'running', rows = 77")
        await look_after(api)
        assert len(files_in(api)) == 1  # it is being written
        await work(api)
        assert files_in(api) == [f"{account}-{made['id']}.zip"]
        assert (await person.ask("GET", f"/account/exports/{made['id']}/download")).is_success
        (folder / f"{account}-{made['id']}.ffff.part").write_text("half")
        (folder / "77-1.zip").write_text("of an account that is gone")
        await look_after(api)
        assert files_in(api) == [f"{account}-{made['id']}.zip"]
        assert records.files_of(folder, account) == [folder / f"{account}-{made['id']}.zip"]
        assert records.files_of(folder, account + 1) == []

    api.run(ask)


def test_an_attempt_that_fails_leaves_no_file_and_one_that_fails_for_good_is_told(
    exporter, database_url, monkeypatch
) -> None:
    api = exporter(PAQETT_EXPORTS__MIN_FREE_BYTES=str(1 << 62))  # no disk has so much free

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/account/exports")).json()
        await look_after(api)
        path = f"/account/exports/{made['id']}"
        assert (await person.ask("GET", path)).json()["status"] == "waiting"
        await work(api)
        assert files_in(api) == []
        await look_after(api)
        assert (await person.ask("GET", path)).json()["status"] == "failed"
        download = await person.ask("GET", f"{path}/download")
        assert (download.status_code, download.json()["code"]) == (409, "export_not_ready")
        notices = (await person.ask("GET", "/notices?kind=export")).json()["items"]
        assert [notice["event"] for notice in notices] == ["export_failed"]

    api.run(ask)


def test_an_account_erased_meanwhile_leaves_no_archive(exporter, database_url, monkeypatch) -> None:
    api = exporter()
    monkeypatch.setattr(worker, "_NOTED_EVERY_S", 0.0)
    finish = Archive.finish

    def erase(_: Archive) -> Any:
        with psycopg.connect(database_url) as conn:
            conn.execute("DELETE FROM account")
        return finish(_)

    monkeypatch.setattr(Archive, "finish", erase)

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        await person.ask("POST", "/account/exports")
        await work(api)
        assert files_in(api) == []

    api.run(ask)
    with psycopg.connect(database_url) as conn:
        left = conn.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'write_export'"
        )
        assert left.fetchone() == (0,)


def test_a_worker_that_stops_breaks_an_archive_off_and_leaves_it_to_the_next(
    exporter, database_url, monkeypatch
) -> None:
    api = exporter()
    begun = asyncio.Event()

    async def endless(*_: Any) -> Any:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(readings, "look", endless)

    async def stopped() -> None:
        async with app.services(api.settings, "test", api.now) as services:
            queue = jobs.app(api.settings.database)
            async with queue.open_async():
                process.register(queue, services)
                working = asyncio.create_task(
                    process.work(queue, services, queues=[jobs.EXPORTS], stops_s=0.05)
                )
                await begun.wait()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def ask(client: httpx.AsyncClient) -> None:
        person = await new_person(client, api.settings)
        made = (await person.ask("POST", "/account/exports")).json()
        await stopped()
        assert files_in(api) == []
        await look_after(api)
        got = await person.ask("GET", f"/account/exports/{made['id']}")
        assert got.json()["status"] == "running"  # and its job waits for another worker
        monkeypatch.undo()
        with psycopg.connect(database_url) as conn:
            conn.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")
        await work(api)
        got = await person.ask("GET", f"/account/exports/{made['id']}")
        assert got.json()["status"] == "ready"

    api.run(ask)


def test_what_the_register_exports_has_a_query_of_exactly_its_columns(database_url, owner) -> None:
    with psycopg.connect(database_url) as conn:
        for table in contents.tables(REGISTER):
            text = sqlfiles.query(contents.query_name(table))
            found = conn.execute(text, {"account": owner.account_id}).description
            kept = [column for column in table.columns if column not in table.withheld]
            assert found is not None
            assert [column.name for column in found] == kept, table.name
            assert "%(account)s" in text
    described = [contents.describe(REGISTER, table).stem for table in REGISTER.tables.values()
                 if table.export is not None]  # fmt: skip
    assert len(set(described)) == len(described)
    assert {"readings", "readings_text"} <= set(described)


def test_readings_in_another_order_are_noticed() -> None:
    import numpy as np

    series = np.array([1, 1, 2])
    readings._check_order(series, np.array([1, 2, 1]))
    for wrong, times in (([1, 2, 1], [1, 1, 2]), ([1, 1, 2], [2, 1, 1]), ([1, 1, 2], [1, 1, 1])):
        with pytest.raises(readings.OutOfOrder):
            readings._check_order(np.array(wrong), np.array(times))


def test_a_full_disk_is_noticed_before_it_is_full(tmp_path: Path) -> None:
    one = Archive(tmp_path / "x.part", "csv", MIDNIGHT, 1 << 62)
    with pytest.raises(DiskFull):
        one.begin(Description("a", "", "", "", {"x": ""}))
    one.abandon()
    assert list(tmp_path.glob("*")) == []


def test_rows_become_lines() -> None:
    rows = [{"a": None, "b": [1, "x"], "c": True, "d": 'q"', "e": b"\xff1", "f": MIDNIGHT}]
    day = MIDNIGHT.isoformat().replace("+00:00", "Z")
    assert archive.lines("csv", rows) == f',"[1,""x""]",true,"q""",\\xff1,{day}\n'.encode()
    (line,) = archive.lines("ndjson", rows).splitlines()
    assert json.loads(line) == {
        "a": None, "b": [1, "x"], "c": True, "d": 'q"', "e": "\\xff1", "f": day,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "+cmd|'x'!A0", "-2+3+cmd|'x'!A0", "\t=1", "\r=1",
        "\n=1", '=HYPERLINK("http://evil.example","look")', "\uff1d1+1",
    ],
)  # fmt: skip
def test_no_text_of_an_archive_is_a_formula_in_a_spreadsheet(text: str) -> None:
    """Devices, webhooks and whoever signs in with some agent write into it, too."""
    (row,) = csv.reader(io.StringIO(archive.lines("csv", [{"a": text}]).decode(), newline=""))
    assert row == [f"'{text}"]
    series = readings.Series(1, "d", text, "number", False)
    (row,) = csv.reader(io.StringIO(readings._middle("csv", series), newline=""))
    assert row[:3] == ["Z", "d", f"'{text}"]
    (line,) = archive.lines("ndjson", [{"a": text}]).splitlines()
    assert json.loads(line) == {"a": text}


def test_numbers_and_names_of_an_archive_are_as_they_were() -> None:
    row = {"a": -0.5, "b": "-12", "c": "+49123", "d": "-dev_1", "e": "a=b", "f": "-1.5e-7", "g": -3}
    assert archive.lines("csv", [row]) == b"-0.5,-12,+49123,-dev_1,a=b,-1.5e-7,-3\n"
