"""Each unit's user has its own and no more: tried by processes that become them, as root may."""

import ctypes
import os
import re
import stat
import subprocess
import sys
import urllib.request
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
import pytest

from paqett import backups, doctor, folders, needs, register, settings
from paqett.audit import files
from paqett.cli import deployment, processes
from paqett.erasure import tombstones
from paqett.erasure.tombstones import Tombstone
from paqett.exports import records
from paqett.exports.archive import Archive
from paqett.ingest.spool import Spool
from paqett.settings import load
from paqett.worker import exports, mail
from stacks import next_port, private_folder, until
from support import in_database
from units import (
    PROCESSES,
    ROOT,
    UNITS,
    Machine,
    User,
    acted,
    directives,
    environ,
    install,
    made_machine,
    state_directories,
)  # fmt: skip

STONE = Tombstone(datetime(2026, 1, 1, tzinfo=UTC), 7)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with made_machine() as made:
        yield made


def test_each_unit_has_a_user_of_its_own_that_there_is(machine: Machine) -> None:
    users = {name: directives(f"paqett-{name}.service")["User"] for name in PROCESSES}
    assert users == {name: [f"paqett-{name}"] for name in PROCESSES}
    assert len({machine.users[user].uid for (user,) in users.values()}) == len(PROCESSES)
    shown = {name for name in PROCESSES
             if machine.users["paqett"].gid in machine.users[f"paqett-{name}"].groups}  # fmt: skip
    assert shown == {"api", "broker"}, "whoever shows the certificate"
    own = {machine.users[f"paqett-{name}"].gid for name in PROCESSES}
    for name in PROCESSES:
        user = machine.users[f"paqett-{name}"]
        assert set(user.groups) & own == {user.gid}, "nobody is in another's group"


def test_a_unit_may_write_the_folders_its_process_makes_and_no_others(machine: Machine) -> None:
    made = machine.settings
    wanted = {
        "api": set(), "ingest": {made.data_dir / "ingest"}, "broker": {made.data_dir / "broker"},
        "worker": {mail.folder(made), made.export_dir, made.backup_dir},
    }  # fmt: skip
    for process in PROCESSES:
        unit = directives(f"paqett-{process}.service")
        given = {machine.root / "var/lib" / folder for folder in state_directories(process)}
        given |= {Path(f"{machine.root}{path}") for line in unit.get("ReadWritePaths", [])
                  for path in line.split()}  # fmt: skip
        assert given == wanted[process], process
        for folder in given:
            assert machine.as_user(f"paqett-{process}", lambda at=folder: mark(at)) == "None"
        if state_directories(process):
            assert unit["StateDirectoryMode"] == ["0700"]
    assert machine.as_user("paqett-worker", lambda: mark(made.data_dir)) == "PermissionError"


def mark(folder: Path) -> None:
    (folder / "mark").touch()
    (folder / "mark").unlink()


def test_an_archive_is_written_by_the_worker_and_read_by_the_api_alone(machine: Machine) -> None:
    place = machine.settings.export_dir
    whole = records.file_of(place, 7, 1)

    def write() -> None:
        folder = folders.open_folder(place)
        draft = folder / "7-1.0a0b.part"
        Archive(draft, "csv", datetime.now(UTC), 0).finish()
        exports._publish(draft, whole)
        Archive(folder / "7-2.0a0b.part", "csv", datetime.now(UTC), 0).finish()

    assert machine.as_user("paqett-worker", write) == "None"
    assert stat.S_IMODE(place.stat().st_mode) == 0o2710
    assert stat.S_IMODE(whole.stat().st_mode) == 0o640
    assert machine.as_user("paqett-api", lambda: whole.read_bytes()[:2]) == "b'PK'"
    draft = place / "7-2.0a0b.part"
    for forbidden in (draft.read_bytes, whole.unlink, whole.touch, lambda: list(place.iterdir())):
        assert machine.as_user("paqett-api", forbidden) == "PermissionError"
    for name in ("paqett-ingest", "paqett-broker", "paqett"):
        assert machine.as_user(name, whole.read_bytes) == "PermissionError"
    assert machine.as_user("paqett-worker", lambda: len(records.files_of(place, 7))) == "2"


def test_a_folder_that_nobody_shares_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir(mode=0o755)
    folder = folders.open_folder(tmp_path / "exports")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folders.mode_of_files(folder) == 0o600
    folder.chmod(0o2757)
    assert stat.S_IMODE(folders.open_folder(folder).stat().st_mode) == 0o2750, "others never"


def test_a_restore_reads_and_adds_to_the_tombstones_of_the_worker(machine: Machine) -> None:
    """`paqett-as migrate` is PostgreSQL's user in the worker's group."""
    place = machine.settings.backup_dir
    restoring = User(64_999, machine.users["paqett-worker"].gid, [])

    def append() -> int:
        tombstones.append(place, STONE)
        return len(list(tombstones.read(place)))

    assert machine.as_user("paqett-worker", append) == "1"
    assert acted(restoring, append) == "2"
    assert machine.as_user("paqett-worker", append) == "3"
    (place / "erasures.ndjson").unlink()
    assert acted(restoring, append) == "1", "a restore may come before the first erasure"
    assert machine.as_user("paqett-worker", append) == "2"
    backup = place / "paqett-20260101T000000Z.dump"
    assert acted(restoring, lambda: backup.write_text("all")) == "3"
    removed = backups._remove_old
    assert acted(restoring, lambda: removed(place, datetime.now(UTC) + timedelta(1))) != "[]"
    for name in ("paqett-api", "paqett-ingest", "paqett-broker", "paqett"):
        assert machine.as_user(name, append) == "PermissionError"
        assert machine.as_user(name, lambda: list(place.iterdir())) == "PermissionError"


def test_the_spool_is_ingests_alone_and_doctor_and_privacy_check_say_so(machine: Machine) -> None:
    folder = machine.data / "ingest" / "spool"

    def keep() -> None:
        spool = Spool(folder, max_bytes=1 << 20, min_free_bytes=0)
        spool.close()

    assert machine.as_user("paqett-ingest", keep) == "None"
    assert machine.as_user("paqett-worker", lambda: list(folder.iterdir())) == "PermissionError"

    settings = machine.settings  # the checkout may be where only root reads

    def examined() -> str:
        (found,) = (one for one in doctor.examine_machine(settings)
                    if one.subject == "spool")  # fmt: skip
        return f"{found.state} {found.detail}"

    for name in ("paqett-worker", "paqett"):
        assert machine.as_user(name, examined).startswith(f"ok {machine.data / 'ingest'} is its")
    assert machine.as_user("paqett-ingest", examined).startswith("ok 0 of ")

    def checked() -> str:
        return str([(one.passed, one.detail) for one in files.of_folder(kept, machine.data)])

    kept = register.load()
    said = machine.as_user("paqett-worker", checked)
    assert said.startswith('[(True, "0 files, each of them known; broker, ingest: for other')
    (machine.data / "lovelace").mkdir(mode=0o700)
    assert "False" in machine.as_user("paqett-worker", checked), "whose that is, nobody knows"


def test_one_process_does_not_read_the_environment_of_another(machine: Machine) -> None:
    user = machine.users["paqett-api"]
    with subprocess.Popen(
        ["sleep", "60"], env={"PAQETT_SECRET": "s"}, user=user.uid, group=user.gid, extra_groups=[]
    ) as process:
        place = Path(f"/proc/{process.pid}/environ")
        try:
            until(lambda: b"PAQETT_SECRET" in place.read_bytes(), "it runs")
            assert "PAQETT_SECRET=s" in machine.as_user("paqett-api", place.read_bytes)
            for name in ("paqett-worker", "paqett-ingest", "paqett-broker", "paqett"):
                assert machine.as_user(name, place.read_bytes) == "PermissionError"
        finally:
            process.kill()


def test_a_process_is_closed_to_others_of_its_user_too() -> None:
    """Mosquitto is the broker's child and has its user; in a container all have."""
    libc, get_dumpable = ctypes.CDLL(None), 3

    async def run(_: Any, stop: Any) -> None:
        os._exit(10 + libc.prctl(get_dumpable, 0, 0, 0, 0))

    start = processes._process(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        start(load({}), Namespace(command="api"))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    assert libc.prctl(get_dumpable, 0, 0, 0, 0) == 1, "it is asked of a process that is not"


# --- who is given which secret


def test_every_secret_that_can_be_set_has_its_users() -> None:
    """`database.url` holds a password of a role that is each process's own."""
    named = {f"{section.name}.{field.name}"
             for section in msgspec.structs.fields(settings.Settings)
             for field in msgspec.structs.fields(section.type)
             if re.search(r"password$|secret|token$|(^|_)key$", field.name)}  # fmt: skip
    urls = {"github.token_url"}
    assert named - urls | {"database.replica_url"} == set(needs.SECRETS)
    for name in needs.SECRETS:
        variable = f"PAQETT_{name.replace('.', '__').upper()}"
        assert needs.in_vain(load({variable: "x"}), "nothing of that name") == [name]


def test_the_docs_say_which_file_has_which_secret() -> None:
    page = (ROOT / "docs/install.md").read_text().partition("## Where secrets stand")[2]
    said: dict[str, frozenset[str]] = {}
    for names, users in re.findall(
        r"^\| (`.*?) \| (.*?) \|$", page.partition("\n## ")[0], re.MULTILINE
    ):
        for name in re.findall(r"`([\w.…]+)`", names):
            said[name] = frozenset(re.findall(r"`(\w+)`", users))
    roles = {name for name in needs.SECRETS if name.startswith("roles.")}
    by_hand = {"agent.secret", "client.key"}
    assert said.pop("roles.…_password") == frozenset({"migrate"})
    assert said.pop("database.url") == frozenset()
    assert said == {name: users for name, users in needs.SECRETS.items()
                    if name not in roles | by_hand}  # fmt: skip


def test_each_file_of_settings_has_the_secrets_of_its_process_alone(tmp_path: Path) -> None:
    install(tmp_path)
    assert not [name for name in environ(tmp_path / "paqett.env") if "PASSWORD" in name]
    asks = set()
    for process in PROCESSES:
        own = load(environ(tmp_path / "paqett.env", tmp_path / f"{process}.env"))
        assert needs.in_vain(own, process) == []
        asks |= {process} if own.mqtt.password else set()
    assert asks == needs.SECRETS["mqtt.password"]


def test_each_process_is_ready_with_its_own_file_and_nothing_else(
    bare_database_url: str, tmp_path: Path
) -> None:
    """The worker of a platform that sells, too, without what Stripe signs its webhooks with."""
    install(tmp_path)
    prepared = environ(tmp_path / "migrate.env") | {"PAQETT_DATABASE__URL": bare_database_url}
    in_database(bare_database_url, lambda _: deployment._migrated(load(prepared)))
    mqtt, devices, http = next_port(), next_port(), next_port()
    with private_folder() as folder, ExitStack() as running:
        ports, started = {}, list[subprocess.Popen[bytes]]()
        running.callback(stopped, started)
        for process in PROCESSES:
            own = environ(tmp_path / "paqett.env", tmp_path / f"{process}.env")
            ports[process] = next_port()
            own |= {
                "PAQETT_DATABASE__URL": here(own["PAQETT_DATABASE__URL"], bare_database_url),
                "PAQETT_PAQETT__DATA_DIR": str(folder), "PAQETT_OPS__PORT": str(ports[process]),
                "PAQETT_MQTT__PORT": str(mqtt), "PAQETT_BROKER__LISTEN_PORT": str(devices),
                "PAQETT_HTTP__PORT": str(http), "PATH": os.environ["PATH"],
            }  # fmt: skip
            if process == "worker":
                own["PAQETT_STRIPE__SECRET_KEY"] = "sk_test_x"
            said = running.enter_context((tmp_path / f"{process}.log").open("wb"))
            argv = [sys.executable, "-m", "paqett", process]
            started.append(subprocess.Popen(argv, env=own, stdout=said, stderr=said))
        for process, port in ports.items():
            until(lambda at=port: ready(at), (tmp_path / f"{process}.log").read_text())
        for process in PROCESSES:
            assert "does not need" not in (tmp_path / f"{process}.log").read_text()


def stopped(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def here(url: str, database_url: str) -> str:
    """The same role and password at the tests' own server."""
    own, ours = urlsplit(url), psycopg.conninfo.conninfo_to_dict(database_url)
    role = str(own.username).replace("paqett_", f"{ours['dbname']}_")
    place = f"{role}:{own.password}@{ours.get('host', '127.0.0.1')}:{ours['port']}"
    return urlunsplit(own._replace(netloc=place, path=f"/{ours['dbname']}"))


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_what_one_file_had_for_all_is_handed_out_once(tmp_path: Path) -> None:
    """An installation of before: one environment for every process."""
    install(tmp_path)
    before = environ(tmp_path / "ingest.env")["PAQETT_MQTT__PASSWORD"]
    for process in ("ingest", "worker", "broker"):
        file = tmp_path / f"{process}.env"
        kept = [line for line in file.read_text().splitlines() if "MQTT" not in line]
        file.write_text("\n".join(kept))
    with (tmp_path / "paqett.env").open("a") as shared:
        shared.write(f"PAQETT_MQTT__PASSWORD={before}\nPAQETT_MAIL__SMTP_HOST=mail.example.org\n"
                     "PAQETT_MAIL__SMTP_PASSWORD=post\nPAQETT_CLIENT__KEY=pqt_mine\n"
                     "PAQETT_DATABASE__REPLICA_URL=postgresql://paqett_api:x@replica/paqett\n"
                     "PAQETT_STRIPE__SECRET_KEY_FILE=/etc/paqett/stripe\n")  # fmt: skip
    said = install(tmp_path)
    assert said.count("moved out of paqett.env") == 4
    assert before not in said
    shared_now = environ(tmp_path / "paqett.env")
    assert shared_now["PAQETT_MAIL__SMTP_HOST"] == "mail.example.org", "no secret"
    assert shared_now["PAQETT_CLIENT__KEY"] == "pqt_mine", "no process is there to have it"
    assert not {"PAQETT_MQTT__PASSWORD", "PAQETT_MAIL__SMTP_PASSWORD"} & set(shared_now)
    files = {name: environ(tmp_path / f"{name}.env") for name in PROCESSES}
    assert {name for name, has in files.items() if has.get("PAQETT_MQTT__PASSWORD") == before} == {
        "ingest", "worker", "broker"
    }  # fmt: skip
    assert files["worker"]["PAQETT_MAIL__SMTP_PASSWORD"] == "post"
    assert [name for name in files if "PAQETT_DATABASE__REPLICA_URL" in files[name]] == ["api"]
    assert "PAQETT_DATABASE__REPLICA_URL" not in shared_now
    assert {name for name, has in files.items() if "PAQETT_STRIPE__SECRET_KEY_FILE" in has} == {
        "api", "worker"
    }  # fmt: skip
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert "moved" not in install(tmp_path)
    assert texts == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_folders_are_taken_from_the_one_user_before_root_touches_what_is_in_them() -> None:
    """It still runs broker and ingest then, and could put a link in a folder's place."""
    steps = (ROOT / "src/paqett/local/install.sh").read_text().partition("\nsystem() {\n")[2]
    lines = [line.strip() for line in steps.splitlines()]
    assert lines.index("systemd-tmpfiles --create paqett.conf") < lines.index("carry_over")


# --- paqett-as


RUNUSER = """#!/bin/bash
printf '%s\\n' "$@" > "$SAID/argv"
env > "$SAID/environ"
"""


def asked(tmp_path: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """What `paqett-as` would run, and with which settings."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    for name, text in (("runuser", RUNUSER), ("systemctl", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    given = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SAID": str(tmp_path),
        "PAQETT_ETC": str(tmp_path / "etc"), "PAQETT_MQTT__PASSWORD": "of root's own shell",
    }  # fmt: skip
    subprocess.run([str(UNITS / "paqett-as"), *words], env=given, check=True)
    lines = (tmp_path / "environ").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return (tmp_path / "argv").read_text().splitlines(), {
        name: text for name, text in found.items() if name.startswith("PAQETT_")
    }


def test_by_hand_a_command_runs_as_the_unit_does(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    install(etc)
    with (etc / "paqett.env").open("a") as shared:
        shared.write('PAQETT_PRIVACY__CONTROLLER="Ada Lovelace, $HOME 1; `id`"\n')
        shared.write("PAQETT_PRIVACY__PROCESSORS=Us | mail | Germany | a contract")
    for process in PROCESSES:
        argv, given = asked(tmp_path, process, "admin", "list", "--json")
        assert argv == ["-u", f"paqett-{process}", "--", "/opt/paqett/bin/paqett",
                        "admin", "list", "--json"]  # fmt: skip
        wanted = environ(etc / "paqett.env", etc / f"{process}.env")
        wanted["PAQETT_PRIVACY__CONTROLLER"] = "Ada Lovelace, $HOME 1; `id`"
        assert given == wanted
    argv, given = asked(tmp_path, "migrate", "admin", "backup")
    assert argv[:4] == ["-u", "postgres", "-g", "paqett-worker"]
    assert load(given).backup_dir == Path("/var/lib/paqett/backup")
    assert "user=postgres" in given["PAQETT_DATABASE__URL"]
    argv, given = asked(tmp_path, "all", "doctor")
    assert argv[:4] == ["-u", "paqett", "-g", "paqett"]
    assert urlsplit(given["PAQETT_DATABASE__URL"]).username == "paqett_worker", "it sees most"
    with pytest.raises(subprocess.CalledProcessError):
        asked(tmp_path, "somebody", "doctor")


def test_by_hand_white_space_is_read_as_systemd_reads_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/api.env").write_text("")
    (tmp_path / "etc/paqett.env").write_text(
        "  # mail\n\t; and more\n  PAQETT_MAIL__SMTP_HOST = mail.example.org \r\n"
        'PAQETT_PRIVACY__CONTACT=" Ada "  \nnothing\n'
    )
    _, given = asked(tmp_path, "api", "admin", "list")
    assert given == {
        "PAQETT_MAIL__SMTP_HOST": "mail.example.org", "PAQETT_PRIVACY__CONTACT": " Ada ",
    }  # fmt: skip
