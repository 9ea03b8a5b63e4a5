"""compose.yaml for real: our image, every service but Grafana, and kills.

Needs an engine with Compose 2.24 (on Debian 13 `docker.io docker-compose`; DOCKER_HOST names one
elsewhere), root, and debootstrap where `debian:trixie-slim` cannot be pulled. In the place of other
images that would be pulled are some of Debian's packages (`images/`).
"""

import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import papers
from paqett.local.packets import Refused, open_connection, publish_packet
from ports import free_port

pytestmark = pytest.mark.prove
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BASE = "debian:trixie-slim"
STANDING_IN = ("database", "proxy", "prometheus")
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = [name for name, one in SERVICES.items() if one["image"] == "paqett"]
LASTING = [name for name in SERVICES if name not in ("migrate", "doctor", "grafana")]
PROCESSES = [name for name in OURS if name in LASTING and name != "mqtt"]
PASSWORD = "correct horse battery staple 9"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# how this machine reaches its packages
ACCESS = (AUTHORITIES, "/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.npmrc")
TRUSTING = " ".join(
    f"{name}={AUTHORITIES}"
    for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
)


def docker(*arguments: str, check: bool = True, **more: Any) -> str:
    """What the command says; where it fails, that is what the test fails with."""
    environ = {**os.environ, **more.pop("env", {})}
    done = subprocess.run(
        ["docker", *arguments], text=True, capture_output=True, env=environ, check=False, **more
    )
    assert done.returncode == 0 or not check, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def no_engine() -> str:
    """Why there is none; empty where there is."""
    if shutil.which("docker") is None:
        return "docker is missing"
    if "Server Version" not in docker("info", check=False):
        return "no engine answers"
    return "" if "version" in docker("compose", "version", check=False).lower() else "no Compose"


def make_base(folder: Path) -> None:
    """Debian itself, as an image."""
    if "Id" in docker("image", "inspect", BASE, check=False):
        return
    if shutil.which("debootstrap") is None:
        docker("pull", BASE)
        return
    tree = folder / "tree"
    made = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "trixie", str(tree)]
    subprocess.run(made, check=True, capture_output=True)
    for name in filter(os.path.exists, ACCESS):
        there = tree / name.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, there)
    with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
        docker("import", "--change", f"ENV {TRUSTING}", "-", BASE, stdin=tar.stdout)
    shutil.rmtree(tree)


class Composed:
    """The whole of compose.yaml under a project, ports and secrets of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.https = free_port(18_443)
        self.mqtts = free_port(18_883)
        self.prometheus = free_port(19_090)
        tls = folder / "tls"
        tls.mkdir()
        chain, key = papers.write(tls, "localhost")
        self.chain = chain.rename(tls / "fullchain.pem")
        for file in (self.chain, key.rename(tls / "privkey.pem")):
            os.chown(file, 0, 10001)
            file.chmod(0o640)
        tls.chmod(0o755)
        (folder / "more.yaml").write_text(self._more())
        self._environ = {
            "PAQETT_DOMAIN": "localhost", "PAQETT_TLS_FOLDER": str(tls), "DOCKER_BUILDKIT": "0",
            "PAQETT_OPS_HOST": "0.0.0.0", "COMPOSE_PROFILES": "metrics",
            "COMPOSE_PROJECT_NAME": "paqett-test",
            "COMPOSE_FILE": f"{ROOT}/compose.yaml:{folder}/more.yaml",
        }  # fmt: skip
        for name in ("DATABASE", "API", "INGEST", "WORKER", "MQTT", "GRAFANA"):
            self._environ[f"PAQETT_{name}_PASSWORD"] = secrets.token_hex(16)

    def _more(self) -> str:
        ports = {
            "mqtt": f"127.0.0.1:{self.mqtts}:8883",
            "proxy": f"127.0.0.1:{self.https}:8443",
            "prometheus": f"127.0.0.1:{self.prometheus}:9090",
        }
        lines = ["services:"]
        for name in {*OURS, *STANDING_IN}:
            lines += [f"  {name}:", f"    image: paqett-test{'' if name in OURS else '-' + name}"]
            if name in ports:
                lines.append(f"    ports: !override ['{ports[name]}']")
        return "\n".join(lines) + "\n"

    def compose(self, *arguments: str, check: bool = True, **more: Any) -> str:
        return docker("compose", *arguments, check=check, env=self._environ, cwd=ROOT, **more)

    def build(self) -> None:
        make_base(self.folder)
        for name in STANDING_IN:
            made = f"{HERE}/images/{name}.Dockerfile"
            docker("build", "-t", f"paqett-test-{name}", "-f", made, f"{HERE}/images",
                   env={"DOCKER_BUILDKIT": "0"})  # fmt: skip
        self.compose("build", "api")

    def up(self, *names: str) -> None:
        self.compose("up", "--detach", "--no-build", *names)

    def health(self, name: str) -> str:
        said = self.compose("ps", "--format", "json", name, check=False)
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return found[0]["Health"] if found else "gone"

    def well(self, *names: str) -> None:
        until(lambda: {self.health(name) for name in names} == {"healthy"}, "all are well")

    def client(self) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=str(self.chain))
        return httpx.Client(base_url=f"https://localhost:{self.https}", verify=trusted, timeout=10)


def until(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    if why := no_engine():
        pytest.skip(f"compose.yaml is not run: {why}")
    made = Composed(tmp_path_factory.mktemp("containers"))
    made.build()
    try:
        made.up(*LASTING)
        made.well(*LASTING)
        yield made
    finally:
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)


class Owner:
    """An account over the proxy, with a device of its own."""

    def __init__(self, composed: Composed, client: httpx.Client) -> None:
        self._composed, self._client = composed, client
        login = {"email": "you@example.org", "password": PASSWORD}
        signed_in = client.post("/api/v1/auth/login", json=login)
        assert signed_in.status_code == 200, signed_in.text
        client.headers["X-CSRF-Token"] = signed_in.json()["csrf_token"]
        made = client.post("/api/v1/devices", json={"thing_name": "probe"}).json()
        self.device, self.secret = made["id"], made["secret"]

    def publish(self, value: float, secret: str = "") -> None:
        """Over TLS, acknowledged. Raises `Refused` and `OSError`."""
        trusted = ssl.create_default_context(cafile=str(self._composed.chain))
        secret = secret or self.secret
        with open_connection(self._composed.mqtts, self.device, secret, trusted) as conn:
            body = json.dumps({"n": value}).encode()
            conn.sendall(publish_packet(f"paqett/v1/{self.device}/telemetry", body, 1, 1))
            if conn.recv(4)[:1] != b"\x40":
                raise Refused("closed before PUBACK")

    def values(self) -> list[float]:
        answer = self._client.get(f"/api/v1/devices/{self.device}/telemetry?metrics=n")
        return [one["value"] for one in answer.json()["items"]] if answer.is_success else []

    def await_values(self, *values: float) -> None:
        until(lambda: self.values() == list(values), f"{values} are there")


@pytest.fixture(scope="module")
def owner(composed: Composed) -> Iterator[Owner]:
    create = ("paqett", "admin", "create-account", "you@example.org", "--password-stdin")
    composed.compose("run", "--rm", "-T", "migrate", *create, input=PASSWORD + "\n")
    with composed.client() as client:
        made = Owner(composed, client)
        until(lambda: _lets_in(made), "the broker knows the device")
        made.await_values(0)
        yield made


def _lets_in(owner: Owner) -> bool:
    try:
        owner.publish(0)
    except (Refused, OSError):
        return False
    return True


def test_the_doctor_finds_nothing_wrong_but_a_name_that_leads_nowhere(composed: Composed) -> None:
    said = composed.compose("run", "--rm", "-T", "doctor", check=False)
    failed = {line.split()[0] for line in said.splitlines() if "state=failed" in line}
    assert failed == {"subject=address"}, said


def test_no_process_can_write_its_program(composed: Composed) -> None:
    for name in PROCESSES:
        said = composed.compose("exec", "-T", name, "sh", "-c", "id -u; touch /opt/x", check=False)
        assert "10001" in said
        assert "Read-only file system" in said


def test_people_reach_it_by_https_and_are_sent_there(composed: Composed) -> None:
    with composed.client() as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/sign-in").status_code == 200
        assert client.get("/metrics").status_code == 404


def test_a_wrong_secret_is_refused(owner: Owner) -> None:
    with pytest.raises(Refused):
        owner.publish(1, secret="wrong")


def test_prometheus_reaches_every_process(composed: Composed) -> None:
    def up() -> set[str]:
        address = f"http://127.0.0.1:{composed.prometheus}/api/v1/targets"
        active = httpx.get(address).json()["data"]["activeTargets"]
        return {one["labels"]["job"] for one in active if one["health"] == "up"}

    until(lambda: up() == {f"paqett-{name}" for name in PROCESSES}, "all are scraped")


def test_what_was_acknowledged_without_the_database_arrives(
    composed: Composed, owner: Owner
) -> None:
    before = owner.values()
    composed.compose("kill", "database")
    owner.publish(101)
    owner.publish(102)
    assert owner.values() == []
    composed.up("database")
    owner.await_values(*before, 101, 102)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_killed_process_comes_back_by_itself(composed: Composed, owner: Owner, name: str) -> None:
    before = owner.values()
    composed.compose("exec", "-T", name, "sh", "-c", "kill -9 -1", check=False)
    until(lambda: _lets_in(owner), "the broker takes a reading")
    composed.well(*LASTING)
    assert owner.values()[: len(before)] == before
    until(lambda: len(owner.values()) > len(before), "it has arrived")


def test_an_upgrade_goes_through_migrate_and_loses_nothing(
    composed: Composed, owner: Owner
) -> None:
    before = owner.values()
    composed.compose("up", "--detach", "--no-build", "--force-recreate", *LASTING)
    composed.well(*LASTING)
    assert owner.values() == before
    owner.publish(200)
    owner.await_values(*before, 200)
