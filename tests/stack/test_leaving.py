"""An account leaves a running stack while it and others send at full speed, by the real roles."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from stacks import PAQETT, Stack, running_stack, until

TELEMETRY = [
    f"telemetry_{tier}{form}" for tier in ("free", "paid", "own") for form in ("", "_text")
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as stack:
        yield stack


def rows(stack: Stack, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.state.database_url) as conn:
        found = conn.execute(text, values)
        return found.fetchall() if found.description else []


def admin(stack: Stack, *arguments: str) -> Any:
    environ = {**stack.environ, "PAQETT_DATABASE__URL": stack.state.database_url}
    done = subprocess.run(
        [*PAQETT, "admin", *arguments, "--json"], env=environ, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def readings_of(stack: Stack, account: int) -> int:
    return sum(
        rows(stack, f"SELECT count(*) FROM {table} WHERE account_id = %s", account)[0][0]
        for table in TELEMETRY
    )


def test_an_account_is_erased_while_everybody_sends(stack: Stack) -> None:
    ledger = stack.folder / "leaving.jsonl"
    fleet = stack.simulate(
        "--devices", "40", "--rate", "25", "--accounts", "2", "--seconds", "14", "--name", "leave",
        "--ledger", str(ledger),
    )  # fmt: skip
    found = "SELECT id FROM account WHERE email LIKE 'sim-leave-%%' ORDER BY id"
    until(lambda: len(rows(stack, found)) == 2, "the fleet's accounts")
    (leaves,), (stays,) = rows(stack, found)
    until(lambda: readings_of(stack, leaves) > 2000, "its readings")
    devices = {
        device for (device,) in rows(stack, "SELECT id FROM device WHERE account_id = %s", leaves)
    }
    told = admin(stack, "erase", str(leaves), "--now")
    assert told["status"] == "erasing"
    until(lambda: not rows(stack, "SELECT id FROM account WHERE id = %s", leaves), "it is erased")
    assert fleet.poll() is None, "the others are no longer sending"
    assert fleet.wait(120) == 0
    acknowledged: Counter[str] = Counter()
    with ledger.open() as lines:
        for line in lines:
            device, _, points = json.loads(line)
            acknowledged[device] += points
    until(stack.answers, "it answers")
    assert readings_of(stack, leaves) == 0
    of_the_other = rows(
        stack,
        "SELECT device_id, count(*) FROM telemetry_own JOIN series ON series.id = series_id"
        " WHERE telemetry_own.account_id = %s GROUP BY 1", stays,
    )  # fmt: skip
    assert len(of_the_other) == 20
    for device, points in of_the_other:
        assert points >= acknowledged[device], "an acknowledged reading is missing"
    passwords = (stack.folder / "broker" / "passwords").read_text()
    assert not [device for device in devices if device in passwords]
    (erased,) = rows(stack, "SELECT erased FROM erasure WHERE finished_at IS NOT NULL")[0]
    assert erased["device"] == 20
    assert erased["telemetry_own"] > 2000


class Mosquitto:
    """Debian's own clients, as a device."""

    def __init__(self, stack: Stack, device: str, secret: str) -> None:
        self._where = [
            "-h",
            "127.0.0.1",
            "-p",
            str(stack.state.mqtt_port),
            "-u",
            device,
            "-P",
            secret,
        ]
        self.prefix = f"paqett/v1/{device}"

    def publish(self, topic: str, message: str, *more: str) -> int:
        command = ["mosquitto_pub", *self._where, "-q", "1", "-t", f"{self.prefix}/{topic}"]
        return subprocess.run(
            [*command, "-m", message, *more], capture_output=True, timeout=30, check=False
        ).returncode


def retained(stack: Stack, device: str) -> str:
    """What the broker retains below a device's prefix, as the platform's user sees it."""
    state = stack.state
    return subprocess.run(
        ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(state.platform_port), "-u", "paqett.ingest",
         "-P", state.broker_password, "-t", f"paqett/v1/{device}/#", "-W", "1", "-v"],
        capture_output=True, text=True, timeout=30, check=False,
    ).stdout  # fmt: skip


def test_a_deleted_device_leaves_nothing_at_the_broker(stack: Stack) -> None:
    made = admin_device(stack, "kettle")
    device, secret = made["id"], made["secret"]
    client = Mosquitto(stack, device, secret)
    until(lambda: client.publish("telemetry", '{"t": 1}', "-r") == 0, "it may publish")
    assert client.publish("telemetry/a/b", "2", "-r") == 0
    assert len(retained(stack, device).splitlines()) == 2
    listening = subprocess.Popen(
        ["mosquitto_sub", *client._where, "-c", "-i", device, "-q", "1", "-t",
         f"{client.prefix}/errors"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    online = "SELECT id FROM device WHERE id = %s AND connection = 'online'"
    until(lambda: rows(stack, online, device), "it is connected")
    key = {"Authorization": f"Bearer {stack.state.api_key}"}
    answer = httpx.delete(f"{stack.state.api_url}/api/v1/devices/{device}", headers=key)
    assert answer.status_code == 204
    began = time.monotonic()
    until(
        lambda: device not in (stack.folder / "broker" / "passwords").read_text(), "it is cut off"
    )
    assert time.monotonic() - began < 5
    until(lambda: not rows(stack, "SELECT id FROM erasure WHERE device_id = %s", device), "erased")
    listening.kill()
    listening.wait()
    assert retained(stack, device) == ""
    stones = (stack.folder / "backup" / "erasures.ndjson").read_text()
    assert device in stones


def admin_device(stack: Stack, name: str) -> Any:
    environ = {**stack.environ, "PAQETT_DATABASE__URL": stack.state.database_url}
    account = rows(stack, "SELECT account_id FROM device WHERE id = %s", stack.state.device_id)[0][
        0
    ]
    done = subprocess.run(
        [*PAQETT, "device", "create", "--account", str(account), name, "--json"],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])
