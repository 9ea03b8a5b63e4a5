"""One active and two standing ingest, two APIs, one broker and database: any may be killed.

The same processes are looked at as their operator would: readiness, metrics, dashboard, alerts.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from alarms import Look, documented, fired, labels_of, metrics_of, rules
from paqett.local.fleet import SimDevice
from paqett.settings import config_dir
from stacks import Ingest, Piece, Pieces, Stored, next_port, running_pieces, until


class Scaled:
    """The processes by name; a killed one is started again under its name, in its place."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.ingests: dict[str, Ingest] = {}
        self.apis: dict[str, Piece] = {}
        self._ports = {name: next_port() for name in "xy"}
        self.worker = pieces.other("worker", "worker")
        for name in "abc":
            self.start_ingest(name)
        for name in "xy":
            self.start_api(name)
        until(self.active, "one ingest is active")
        until(lambda: all(self.answers(name) for name in "xy"), "both APIs answer")

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._ports.values()]

    def start_ingest(self, name: str) -> None:
        self.ingests[name] = self.pieces.ingest(name)

    def start_api(self, name: str) -> None:
        port = str(self._ports[name])
        self.apis[name] = self.pieces.other(f"api-{name}", "api", PAQETT_HTTP__PORT=port)

    def active(self) -> str:
        """The name of the one that reads the broker; empty while none does."""
        names = [name for name, ingest in self.ingests.items() if ingest.subscribed()]
        assert len(names) < 2, "two read the broker"
        return names[0] if names else ""

    def look(self) -> Look:
        """At every process as Prometheus sees it."""
        processes = {
            "paqett-ingest": self.ingests, "paqett-api": self.apis,
            "paqett-worker": {"w": self.worker}, "paqett-broker": {"m": self.pieces.broker},
        }  # fmt: skip
        return Look({
            (job, name): piece.ops("/metrics")[1]
            for job, pieces in processes.items() for name, piece in pieces.items()
        })  # fmt: skip

    def answers(self, name: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[name]}/readyz").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture(scope="module")
def scaled() -> Iterator[Scaled]:
    with running_pieces() as pieces:
        yield Scaled(pieces)


class Senders:
    """A device over MQTT and one over HTTP that send all the time, and what was acknowledged."""

    def __init__(self, scaled: Scaled) -> None:
        self._scaled = scaled
        self.over_mqtt, self.over_http = scaled.pieces.devices("scale-out", 2)
        self.promised: Stored = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=lambda: asyncio.run(self._publish(self.over_mqtt))),
            threading.Thread(target=self._post, args=(self.over_http,)),
        ]
        for thread in self._threads:
            thread.start()

    async def _publish(self, device: SimDevice) -> None:
        async def one(at: int) -> None:
            await publisher.publish("telemetry", b'{"ts":%d,"v":1}' % at)
            self.promised[device.id, at] = 1

        tasks = []
        async with self._scaled.pieces.publisher(device, 100_000) as publisher:
            while not self._stop.is_set():
                tasks.append(asyncio.create_task(one(time.time_ns() // 1000)))
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)

    def _post(self, device: SimDevice) -> None:
        """Each reading to the next API, and to the other one until one has said that it has it."""
        urls = cycle(f"{url}/api/v1/devices/{device.id}/telemetry" for url in self._scaled.urls)
        with httpx.Client(auth=(device.id, device.secret), timeout=10) as client:
            while not self._stop.is_set():
                at, answered = time.time_ns() // 1000, False
                while not answered:
                    try:
                        answer = client.post(next(urls), json={"ts": at, "v": 1})
                    except httpx.HTTPError:
                        continue
                    answered = answer.status_code == 200
                self.promised[device.id, at] = 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)


def _killed_in_turn(scaled: Scaled, rounds: int) -> Stored:
    """What was acknowledged while each active ingest and each API was killed, `rounds` times."""
    senders = Senders(scaled)
    try:
        for _ in range(rounds):
            for name, other in ("xy", "yx"):
                first = scaled.active()
                scaled.ingests.pop(first).kill()
                until(scaled.active, "one that stood by reads the broker")
                scaled.start_ingest(first)  # and what it may have spooled
                until(lambda other=other: scaled.answers(other), "the other API is there")
                before = senders.promised.total()
                scaled.apis[name].kill()
                until(lambda before=before: senders.promised.total() > before + 50, "all goes on")
                scaled.start_api(name)
    finally:
        senders.stop()
    devices = (senders.over_mqtt, senders.over_http)
    until(lambda: senders.promised <= scaled.pieces.stored(*devices), "all is stored")
    assert set(scaled.pieces.stored(*devices).values()) == {1}, "and nothing twice"
    assert {device for device, _ in senders.promised} == {device.id for device in devices}
    return senders.promised


def test_each_killed_in_turn_costs_no_reading(scaled: Scaled) -> None:
    assert len(_killed_in_turn(scaled, 1)) > 200


@pytest.mark.prove
def test_ten_rounds_of_kills_cost_no_reading(scaled: Scaled, record_property) -> None:
    record_property("readings", len(_killed_in_turn(scaled, 10)))


def test_every_process_says_that_it_is_ready_and_why(scaled: Scaled) -> None:
    active = scaled.active()
    until(lambda: scaled.worker.ops("/readyz")[0] == 200, "the worker is ready")
    until(lambda: all(map(scaled.answers, "xy")), "both APIs answer")
    until(
        lambda: all(piece.ops("/readyz")[0] == 200 for piece in scaled.ingests.values()), "ingest"
    )
    told = {
        name: json.loads(piece.ops("/readyz")[1])
        for name, piece in (
            *scaled.ingests.items(),
            ("w", scaled.worker),
            ("m", scaled.pieces.broker),
        )
    }
    checks = {name: {c["name"]: c["detail"] for c in one["checks"]} for name, one in told.items()}
    assert {one["status"] for one in told.values()} == {"ready"}
    assert checks[active]["lead"] == "active"
    assert checks[active]["broker"] == "subscribed"
    standing = set(scaled.ingests) - {active}
    assert {checks[name]["lead"] for name in standing} == {
        "standing by: another ingest process is active"
    }
    assert (checks["m"]["mosquitto"], checks["m"]["database"]) == ("serves", "answers")
    for piece in (*scaled.ingests.values(), *scaled.apis.values(), scaled.worker):
        assert piece.ops("/healthz") == (200, "ok\n")
        assert piece.ops("/elsewhere")[0] == 404


@pytest.fixture(scope="module")
def look(scaled: Scaled) -> Look:
    """What every process exports."""
    until(lambda: scaled.worker.metric('paqett_tier_overdue{tier="own"}') == 0, "it has looked")
    return scaled.look()


@pytest.fixture(scope="module")
def exported(look: Look) -> dict[str, str]:
    """The kind of every metric that any process exports."""
    return {
        name: kind
        for page in look.pages.values()
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
    }


def _expressions() -> dict[str, str]:
    board = json.loads((config_dir() / "grafana" / "dashboards" / "operators.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    return found | {name: rule["expr"] for name, rule in rules().items()}


def _yaml(name: str) -> Any:
    return yaml.safe_load((config_dir() / "prometheus" / name).read_text())


def _is_exported(name: str, exported: dict[str, str]) -> bool:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return name in exported or exported.get(base) == "histogram"


@pytest.mark.parametrize("title", _expressions())
def test_what_is_drawn_or_alerted_on_is_exported(exported: dict[str, str], title: str) -> None:
    expression = _expressions()[title]
    named = metrics_of(expression)
    assert named or re.search(r"\bup\{", expression)
    assert {name for name in named if not _is_exported(name, exported)} == set()


def test_the_docs_list_every_metric_and_no_other(exported: dict[str, str]) -> None:
    kinds = {"info": "gauge"}
    listed = {name: kinds.get(kind, kind) for name, (kind, _) in documented().items()}
    assert listed == {n: kind for n, kind in exported.items() if n.startswith("paqett_")}


def test_each_sample_has_the_labels_that_the_docs_give_it(look: Look) -> None:
    seen = 0
    for page in look.pages.values():
        for name, labels in re.findall(r"^(paqett_\w+)(\{.*\})? \S+$", page, re.MULTILINE):
            assert set(re.findall(r'(\w+)="', labels)) == labels_of(name), name
            seen += 1
    assert seen > 500


def test_nobody_is_woken_while_all_is_well(scaled: Scaled, look: Look, tmp_path: Path) -> None:
    device = scaled.pieces.devices("well")[0]
    sent = scaled.pieces.send(device, 500)
    until(lambda: scaled.pieces.stored(device) == sent, "it is stored")
    assert fired(tmp_path, look, scaled.look(), 90) == set()
    dropped = scaled.ingests[scaled.active()].metric("paqett_ingest_broker_dropped_messages")
    assert dropped == 0, "the broker told it, which had counted since before it was there"


def test_names_follow_prometheus(exported: dict[str, str]) -> None:
    for name, kind in exported.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|kilobytes|percent)\b", name), (
            name
        )


def test_alerts_say_what_they_mean_and_who_is_woken(exported: dict[str, str]) -> None:
    groups = _yaml("alerts.yml")["groups"]
    assert sum(len(group["rules"]) for group in groups) == len(rules()) > 20
    for rule in rules().values():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule
        assert rule["annotations"].keys() == {"summary", "description"}, rule
        labels = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        by = re.findall(r"by \(([^)]*)\)", rule["expr"])
        known = {word.strip() for part in by for word in part.split(",")}
        assert set(labels) <= (known or {"job", "instance"}), rule


def test_prometheus_scrapes_every_process() -> None:
    config = _yaml("prometheus.yml")
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    assert jobs == {f"paqett-{name}" for name in ("api", "ingest", "worker", "broker")}
    assert config["rule_files"] == ["alerts.yml"]
    assert (Path(config_dir()) / "prometheus" / "alerts.yml").exists()
