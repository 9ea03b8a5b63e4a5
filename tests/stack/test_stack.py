"""The whole stack as `paqett up` runs it: killed piece by piece, it loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import psycopg
import pytest

from paqett.local.state import State

PAQETT = [sys.executable, "-m", "paqett"]
DEADLINE_S = 100.0


def until(ready: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.1)


class Stack:
    """A running `paqett up` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "PAQETT_PAQETT__DATA_DIR": str(folder),
            "PAQETT_HTTP__PORT": "18400",
            "PAQETT_BROKER__LISTEN_PORT": "18500",
            "PAQETT_MQTT__PORT": "18600",
        }
        self.process: subprocess.Popen[str] | None = None

    def up(self) -> str:
        self.process = subprocess.Popen(
            [*PAQETT, "up"], env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        assert "Paqett is up" in said
        return said

    @property
    def state(self) -> State:
        return msgspec.json.decode((self.folder / "up.json").read_bytes(), type=State)

    def down(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def kill(self, name: str) -> None:
        """`kill -9` one process and wait until another stands in its place."""
        old = self.state.pids[name]
        os.kill(old, signal.SIGKILL)
        until(lambda: self.state.pids.get(name, old) != old, f"{name} is started again")

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.state.api_key}"}
        return httpx.get(f"{self.state.api_url}{path}", headers=headers, timeout=30)

    def answers(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def simulate(self, *arguments: str) -> subprocess.Popen[bytes]:
        environ = {
            **self.environ,
            "PAQETT_DATABASE__URL": self.state.database_url,
            "PAQETT_AGENT__PORT": str(self.state.mqtt_port),
        }
        return subprocess.Popen([*PAQETT, "simulate", *arguments], env=environ)

    def stored(self) -> Counter[tuple[str, int]]:
        """How many readings there are of each (device, time in µs)."""
        with psycopg.connect(self.state.database_url) as conn:
            rows = conn.execute(
                "SELECT device_id, (extract(epoch FROM time) * 1000000)::bigint, count(*)"
                " FROM telemetry_own JOIN series ON series.id = series_id GROUP BY 1, 2"
            ).fetchall()
        return Counter({(device, at): count for device, at, count in rows})


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="paqett-stack-", dir="/var/tmp"))
    folder.chmod(0o755)
    stack = Stack(folder)
    try:
        stack.up()
        yield stack
        stack.down()
    finally:
        if stack.process is not None:
            stack.process.kill()
        until(lambda: not orphans(folder), "nothing is left running")
        shutil.rmtree(folder)


def orphans(folder: Path) -> list[str]:
    """Command lines of processes that still belong to the stack in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            environ = process.environ().get("PAQETT_PAQETT__DATA_DIR", "")
        except psutil.Error:
            continue
        if str(folder) in words or environ == str(folder):
            found.append(words)
    return found


def test_this_machines_own_readings_arrive(stack: Stack) -> None:
    device = stack.state.device_id
    path = f"/api/v1/devices/{device}/telemetry?from=-1m"
    until(lambda: bool(stack.get(path).json()["items"]), "the agent's readings")
    metrics = {item["metric"] for item in stack.get(path).json()["items"]}
    assert "cpu.percent" in metrics
    assert len(metrics) <= 12
    assert stack.get(f"/api/v1/devices/{device}").json()["connection"]["status"] == "online"


def test_the_state_file_is_its_owners_alone(stack: Stack) -> None:
    assert (stack.folder / "up.json").stat().st_mode & 0o777 == 0o600


def test_the_database_holds_the_tiers_hypertables(stack: Stack) -> None:
    with psycopg.connect(stack.state.database_url) as conn:
        tables = conn.execute(
            "SELECT hypertable_name FROM timescaledb_information.hypertables"
        ).fetchall()
        chunks = conn.execute("SELECT count(*) FROM show_chunks('telemetry_own')").fetchone()
    assert {("telemetry_free",), ("telemetry_paid",), ("telemetry_own",)} <= set(tables)
    assert chunks is not None
    assert chunks[0] >= 1


def _killing(stack: Stack, rounds: int, devices: int) -> None:
    ledger = stack.folder / "ledger.jsonl"
    fleet = stack.simulate(
        "--devices", str(devices), "--rate", "1", "--ledger", str(ledger), "--name", "kills"
    )
    try:
        until(lambda: ledger.exists() and ledger.stat().st_size > 0, "the fleet sends")
        for _ in range(rounds):
            time.sleep(0.7)
            stack.kill("ingest")
        for name in ("api", "worker", "database"):
            stack.kill(name)
            until(stack.answers, f"the API answers after {name} was killed")
        time.sleep(1)
    finally:
        fleet.send_signal(signal.SIGINT)
        fleet.wait(30)
    promised = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(promised) > devices
    until(lambda: not _missing(stack, promised), "every acknowledged reading is stored")
    stored = stack.stored()
    assert all(stored[device, at] == points for device, at, points in promised)


def _missing(stack: Stack, promised: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    try:
        stored = stack.stored()
    except psycopg.OperationalError:
        return promised
    return [entry for entry in promised if stored[entry[0], entry[1]] < entry[2]]


def test_what_was_acknowledged_is_stored_exactly_once_whatever_is_killed(stack: Stack) -> None:
    _killing(stack, rounds=4, devices=50)


@pytest.mark.prove
def test_ten_kills_of_ingest_under_two_hundred_devices(stack: Stack) -> None:
    _killing(stack, rounds=10, devices=200)


def test_a_killed_broker_comes_back_and_devices_with_it(stack: Stack) -> None:
    stack.kill("broker")
    device = stack.state.device_id

    def online() -> bool:
        try:
            connection = stack.get(f"/api/v1/devices/{device}").json()["connection"]
        except (httpx.HTTPError, KeyError):
            return False
        return bool(connection["status"] == "online")

    until(online, "the agent is connected again")


def test_a_killed_supervisor_leaves_no_orphan_and_the_data_comes_back(stack: Stack) -> None:
    before = stack.state
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait()
    assert stack.process.stdout is not None
    stack.process.stdout.close()
    until(lambda: not orphans(stack.folder), "the children have gone")
    said = stack.up()
    after = stack.state
    assert before.api_key not in said
    assert (after.api_key, after.device_id, after.api_url) == (
        before.api_key, before.device_id, before.api_url,
    )  # fmt: skip
    items = stack.get(f"/api/v1/devices/{after.device_id}/telemetry").json()["items"]
    assert items
