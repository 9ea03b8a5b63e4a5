"""The whole stack as `paqett up` runs it: killed piece by piece, it loses nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from paqett import register
from paqett.snippets import SECRET
from stacks import PAQETT, Stack, running_stack, until


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as stack:
        yield stack


def test_this_machines_own_readings_arrive(stack: Stack) -> None:
    device = stack.state.device_id
    path = f"/api/v1/devices/{device}/telemetry?from=-1m"
    until(lambda: bool(stack.get(path).json()["items"]), "the agent's readings")
    metrics = {item["metric"] for item in stack.get(path).json()["items"]}
    assert "cpu.percent" in metrics
    assert len(metrics) <= 12
    assert stack.get(f"/api/v1/devices/{device}").json()["connection"]["status"] == "online"


@pytest.mark.parametrize("name", ["mosquitto_pub", "curl", "python"])
def test_a_pasted_snippet_sends_a_reading(stack: Stack, name: str, tmp_path: Path) -> None:
    state = stack.state
    path = f"/api/v1/devices/{state.spare_device_id}"
    found = {item["name"]: item["code"] for item in stack.get(f"{path}/snippets").json()["items"]}
    code = found[name].replace(SECRET, state.spare_device_secret)
    before = _points(stack, path)
    command = ["sh", "-c", code]
    if name == "python":
        (tmp_path / "send.py").write_text(code)
        command = [sys.executable, str(tmp_path / "send.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    until(lambda: _points(stack, path) == before + 1, "its reading is stored")


def _points(stack: Stack, path: str) -> int:
    answer = stack.get(f"{path}/telemetry?metrics=temperature")
    return len(answer.json()["items"])


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


def test_the_data_folder_holds_what_the_register_of_personal_data_says(stack: Stack) -> None:
    files = [path for path in stack.folder.rglob("*") if not path.is_dir()]
    paths = {str(path.relative_to(stack.folder)) for path in files} - {"up.log"}  # the test's own
    kept = register.load()
    assert register.unlisted(kept, paths) == []
    always = [store for store in kept.stores.values() if store.always]
    assert [store.name for store in always if not any(map(store.holds, paths))] == []


def test_a_running_stack_passes_the_privacy_check(stack: Stack) -> None:
    done = subprocess.run(
        [*PAQETT, "privacy", "check", "--json"],
        env=stack.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    failed = [one["detail"] for one in found["findings"] if not one["passed"]]
    assert failed == ["unknown files in the folder itself: 1"]  # up.log, the test's own
    assert done.returncode == 1


def test_the_doctor_finds_nothing_to_mend_on_a_running_stack(stack: Stack) -> None:
    done = subprocess.run(
        [*PAQETT, "doctor", "--json"],
        env=stack.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert [one for one in found.values() if one["state"] != "ok"] == []
    assert found["broker rules"]["detail"].endswith("(tried)")
    assert {"clock", "roles", "durability", "disk", "tier own"} <= set(found)
    assert (done.returncode, done.stderr) == (0, "")


def _survives(stack: Stack, *arguments: str) -> dict[str, Any]:
    """Kill at random, and hold the report to what it must say; returns it."""
    report = stack.torture(*arguments)
    assert report["promised_points"] > 0
    assert (report["missing_points"], report["doubled_points"]) == (0, 0), report
    assert all(entry["back_s"] is not None for entry in report["rounds"]), report
    assert (report["passed"], report["exit"]) == (True, 0)
    return report


def test_what_was_acknowledged_is_stored_exactly_once_whatever_is_killed(stack: Stack) -> None:
    report = _survives(
        stack, "--rounds", "6", "--devices", "50", "--targets", "ingest,backend,database,api,worker"
    )
    assert len(report["rounds"]) == 6


@pytest.mark.prove
def test_thirty_kills_at_random_lose_nothing(stack: Stack) -> None:
    _survives(
        stack, "--rounds", "30", "--devices", "200", "--rate", "5",
        "--targets", "ingest,backend,database,api,worker",
    )  # fmt: skip


# Mosquitto 2.0.11 drops a session restored from disk at the first SIGHUP, and before its first save
# there is none to restore: what arrives before ingest is back reaches nobody. Beyond that, what
# devices have kept for a broker that was away comes all at once, and a kill in it loses some.
def test_a_killed_broker_loses_nothing_it_could_hand_over(stack: Stack) -> None:
    _survives(stack, "--rounds", "2", "--devices", "20", "--rate", "5", "--targets", "broker")


@pytest.mark.prove
def test_ten_kills_of_the_broker_at_half_the_greatest_rate_lose_nothing(stack: Stack) -> None:
    devices = 200
    rate = _greatest_rate(stack, devices) / devices / 2
    _survives(
        stack, "--rounds", "10", "--devices", str(devices), "--rate", f"{rate:.2f}",
        "--targets", "broker",
    )  # fmt: skip


def _greatest_rate(stack: Stack, devices: int) -> float:
    """Messages a second that one fleet gets acknowledged here, the best of a few attempts."""
    return max(_acknowledged(stack, devices, rate) for rate in (5, 10, 20))


def _acknowledged(stack: Stack, devices: int, rate: int, seconds: int = 15) -> float:
    """Messages a second that come of `rate` wanted of each device."""
    ledger = stack.folder / f"rate{rate}.jsonl"
    fleet = stack.simulate(
        "--devices", str(devices), "--rate", str(rate), "--seconds", str(seconds),
        "--ledger", str(ledger), "--name", "rates",
    )  # fmt: skip
    assert fleet.wait(120) == 0
    assert stack.simulate("--name", "rates", "--remove").wait(60) == 0
    with ledger.open() as lines:
        return sum(1 for _ in lines) / seconds


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
    stack.kill_supervisor()
    said = stack.up()
    after = stack.state
    assert before.api_key not in said
    assert (after.api_key, after.device_id, after.api_url) == (
        before.api_key, before.device_id, before.api_url,
    )  # fmt: skip
    items = stack.get(f"/api/v1/devices/{after.device_id}/telemetry").json()["items"]
    assert items
