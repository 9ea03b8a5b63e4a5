"""Whole stacks for tests: as `paqett up` starts them, or in pieces, to be killed one by one."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import httpx
import msgspec
import psutil
import psycopg

import leaks
from paqett import migrate
from paqett.children import die_with_parent
from paqett.db import Connection
from paqett.local import fleet, postgres
from paqett.local.fleet import SimDevice
from paqett.local.state import State
from paqett.mqtt.publisher import Publisher
from paqett.plans import load_plans
from paqett.settings import load
from ports import free_port
from support import in_database

PAQETT = [sys.executable, "-m", "paqett"]
DEADLINE_S = 100.0
# two workers must not take one port between looking and binding
_PORTS = 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

_given = count()


def next_port() -> int:
    """Free, and none of the last 80 that were given: who got those may not have bound them yet."""
    return free_port(19700 + _PORTS + 3 * (next(_given) % 80))


Stored = Counter[tuple[str, int]]


def until(ready: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Return once `ready` says yes; an AssertionError that names `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)


def stored(url: str, tier: str = "own") -> Stored:
    """How many readings there are of each (device, time in µs)."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT device_id, (extract(epoch FROM time) * 1000000)::bigint, count(*)"
            f" FROM telemetry_{tier} JOIN series ON series.id = series_id GROUP BY 1, 2"
        ).fetchall()
    return Counter({(device, at): count for device, at, count in rows})


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that the servers' own users can enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="paqett-stack-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        until(lambda: not orphans(folder), "nothing is left running")
        leaks.check_files(folder)
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
        if str(folder) in words or environ.startswith(str(folder)):
            found.append(words)
    return found


class Stack:
    """A running `paqett up` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "PAQETT_PAQETT__DATA_DIR": str(folder),
            "PAQETT_HTTP__PORT": str(18400 + _PORTS),
            "PAQETT_BROKER__LISTEN_PORT": str(18500 + _PORTS),
        }
        self.process: subprocess.Popen[str] | None = None

    def up(self) -> str:
        """Start it; what it said to a newcomer."""
        told = self.folder / "up.log"
        with told.open("w") as errors:
            self.process = subprocess.Popen(
                [*PAQETT, "up"], env=self.environ, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        assert "Paqett is up" in said, told.read_text()
        return said

    @property
    def state(self) -> State:
        return msgspec.json.decode((self.folder / "up.json").read_bytes(), type=State)

    def down(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self._close()

    def kill_supervisor(self) -> None:
        """`kill -9`, and wait until its children have gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close()
        until(lambda: not orphans(self.folder), "the children have gone")

    def _close(self) -> None:
        assert self.process is not None
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

    def torture(self, *arguments: str) -> dict[str, Any]:
        """What `paqett torture` reports."""
        done = subprocess.run(
            [*PAQETT, "torture", "--json", *arguments],
            env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return {**json.loads(done.stdout), "exit": done.returncode}

    def stored(self) -> Stored:
        return stored(self.state.database_url)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """A stack that is up; whatever becomes of the test, nothing is left running."""
    with private_folder() as folder:
        stack = Stack(folder)
        try:
            stack.up()
            yield stack
            stack.down()
        finally:
            if stack.process is not None:
                stack.process.kill()


class Piece:
    """One process of the pieces, with its own folder, log and metrics."""

    def __init__(
        self, folder: Path, argv: list[str], environ: dict[str, str], dies: int = signal.SIGKILL
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._ops = next_port()
        with (folder / "piece.log").open("ab") as out:
            self.process = subprocess.Popen(
                argv,
                env={
                    **os.environ, **environ,
                    "PAQETT_PAQETT__DATA_DIR": str(folder), "PAQETT_OPS__PORT": str(self._ops),
                },
                stdout=out, stderr=out, preexec_fn=die_with_parent(dies),
            )  # fmt: skip

    def ops(self, path: str) -> tuple[int, str]:
        """Status and text of its own listener's answer; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ops}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def metric(self, name: str) -> float | None:
        """Its value; None where there is no such metric or nobody answers."""
        lines = self.ops("/metrics")[1].splitlines()
        return next((float(line.split()[1]) for line in lines if line.split()[0] == name), None)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self, timeout_s: float = 30.0) -> int:
        """The exit code, once there is one."""
        return self.process.wait(timeout_s)


class Ingest(Piece):
    """One ingest process."""

    def subscribed(self) -> bool:
        return self.metric("paqett_ingest_broker_connected") == 1

    def in_hand(self) -> bool:
        """Whether messages wait for the database, in the spool or unacknowledged."""
        if self.metric("paqett_ingest_spooling") is not None:
            return bool(self.metric("paqett_ingest_spool_bytes"))
        return bool(self.metric("paqett_ingest_unacknowledged"))


class Pieces:
    """A database and a broker of their own, and as many ingest processes as a test starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = postgres.create(
            folder / "postgres", free_port(55900 + _PORTS), shared_buffers="64MB"
        )
        self.url = self.cluster.url("paqett")
        self.mqtt_port = free_port(19500 + _PORTS)
        self._environ = {
            "PAQETT_DATABASE__URL": self.url,
            "PAQETT_BROKER__LISTEN_PORT": str(self.mqtt_port),
            "PAQETT_MQTT__PORT": str(free_port(19600 + _PORTS)),
            "PAQETT_MQTT__PASSWORD": "writer",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._ingests: list[Ingest] = []
        self._others: list[Piece] = []
        self.start_database()
        postgres.create_database(self.cluster, "paqett")
        in_database(self.url, migrate.migrate)
        self.broker = Piece(folder, [*PAQETT, "broker"], self._environ, dies=signal.SIGTERM)

    def start_database(self) -> None:
        self._server = postgres.start(self.cluster, self.folder / "server.log")
        postgres.wait_ready(self.cluster.url())

    def kill_database(self) -> None:
        """`kill -9` the postmaster; nothing starts it again, and its children follow."""
        assert self._server is not None
        family = psutil.Process(self._server.pid).children()
        self._server.kill()
        self._server.wait()
        for process in family:  # a backend in the midst of something would go on for a while
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def kill_broker(self) -> None:
        """`kill -9` Mosquitto itself, at once or as soon as there is one; it is started again."""
        broker = psutil.Process(self.broker.process.pid)
        until(broker.children, "Mosquitto runs")
        for child in broker.children():
            child.kill()

    def ingest(self, name: str = "a", argv: list[str] | None = None, **environ: str) -> Ingest:
        """Start a process; the same `name` finds what an earlier one left in its folder."""
        process = Ingest(
            self.folder / name, argv or [*PAQETT, "ingest"], {**self._environ, **environ}
        )
        self._ingests.append(process)
        return process

    def other(self, name: str, process: str, **environ: str) -> Piece:
        """Start an api or a worker, which goes on until the end."""
        piece = Piece(self.folder / name, [*PAQETT, process], {**self._environ, **environ})
        self._others.append(piece)
        return piece

    def stop_ingests(self) -> None:
        """`kill -9` every one that still runs."""
        for process in self._ingests:
            process.kill()
        self._ingests.clear()

    def tidy(self) -> None:
        """As a test finds it: no ingest, and the database there, whatever the last test left."""
        self.stop_ingests()
        assert self._server is not None
        if self._server.poll() is not None:
            self.start_database()

    def close(self) -> None:
        self.stop_ingests()
        for piece in self._others:
            piece.kill()
        self.broker.signal(signal.SIGTERM)
        self.broker.ended()
        assert self._server is not None
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(30)

    def devices(self, name: str, number: int = 1) -> list[SimDevice]:
        """New devices of a new account."""
        own = load_plans(load({}).plans_file)["own"]

        async def create(conn: Connection) -> list[SimDevice]:
            return await fleet.create(conn, name, number, 1, own)

        made: list[SimDevice] = in_database(self.url, create)
        return made

    def publisher(self, device: SimDevice, kept: int) -> Publisher:
        return Publisher(
            "127.0.0.1", self.mqtt_port, device.id, device.secret,
            refused_wait_s=0.2, takeover_wait_s=0.2, kept=kept,
        )  # fmt: skip

    def send(self, device: SimDevice, number: int) -> Stored:
        """Publish `number` readings; return them once the broker has acknowledged each."""
        first = time.time_ns() // 1000
        times = range(first, first + number)

        async def work() -> None:
            async with self.publisher(device, number) as publisher:
                await asyncio.gather(
                    *(publisher.publish("telemetry", b'{"ts":%d,"v":1}' % at) for at in times)
                )

        asyncio.run(work())
        return Counter({(device.id, at): 1 for at in times})

    def stored(self, *devices: SimDevice) -> Stored:
        """What is stored of `devices`; nothing while the database is away."""
        ids = {device.id for device in devices}
        try:
            found = stored(self.url)
        except psycopg.OperationalError:
            return Counter()
        return Counter({key: count for key, count in found.items() if key[0] in ids})

    def backends(self) -> list[int]:
        """The server's processes that write for ingest."""
        with psycopg.connect(self.url) as conn:
            rows = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'paqett ingest'"
            ).fetchall()
        return [pid for (pid,) in rows]

    def waiting_flush(self) -> bool:
        """Whether a flush waits for somebody's lock."""
        with psycopg.connect(self.url) as conn:
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'paqett ingest' AND wait_event_type = 'Lock'"
            ).fetchone()
        return row != (0,)


@contextmanager
def running_pieces() -> Iterator[Pieces]:
    """Pieces that run; whatever becomes of the test, nothing is left running."""
    with private_folder() as folder:
        pieces = Pieces(folder)
        try:
            yield pieces
        finally:
            pieces.close()
