"""One system under load: its highest rate, and what a kill in the middle costs it."""

import subprocess
import time
from contextlib import AbstractContextManager, suppress
from threading import Event, Thread
from typing import Any

import psutil
import psycopg

from paqett.local import flooding, postgres
from paqett.local.flood import Job
from suite.rivals.system import System
from suite.stand import BENCHMARKS, Stand

_PATIENT_S = 10.0  # without a message for so long, what is missing will not come
_COUNT_EVERY_S = 0.2
_DOWN_S = 1.0  # between the kill and the start, as a supervisor would do it


def publishing(
    system: System, each: int, rate: float = 0.0
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The fleet, connected and ready, with `each` messages of each device."""
    made = system.made
    job = Job(
        devices=[(device.id, device.secret) for device in made.devices],
        port=made.ports["plain"], messages=each, shape=system.shape, rate=rate,
    )  # fmt: skip
    return flooding.flooding(job, ("suite.rivals.fleet", system.form), BENCHMARKS)


class _Stored:
    """Messages stored so far: by the server's statistics, and counted near the end."""

    def __init__(self, system: System, conn: psycopg.Connection, total: int) -> None:
        self._system, self._conn, self._total = system, conn, total
        self._base = system.inserted(conn)
        self._counted_at = 0.0
        self.unasked: tuple[int, int] | None = None  # messages, and when, before it was asked to
        self.messages, self.grew_ns = 0, time.monotonic_ns()

    def look(self) -> int:
        now = self._now()
        if now > self.messages:
            self.messages, self.grew_ns = now, time.monotonic_ns()
        if self._system.holds_back and self._stands and self.unasked is None:
            self.unasked = (self.messages, self.grew_ns)
            self._system.finish()
        return self.messages

    @property
    def _stands(self) -> bool:
        """Near the end, and nothing more comes by itself."""
        return self.still_s > 3 and self._total - self.messages < flooding.BACKLOG / 2

    def _now(self) -> int:
        if self._total - self.messages > flooding.BACKLOG * 1.5:
            return self._system.inserted(self._conn) - self._base
        if time.monotonic() - self._counted_at < _COUNT_EVERY_S:
            return self.messages
        found = self._system.stored(self._conn)
        self._counted_at = time.monotonic()
        return found

    @property
    def still_s(self) -> float:
        return (time.monotonic_ns() - self.grew_ns) / 1e9


def _seconds(process: psutil.Process) -> float:
    """CPU of a process and of its children that have ended."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(
            times.user + times.system + times.children_user + times.children_system
        )  # fmt: skip
    return 0.0


class Use:
    """CPU seconds of a system and of PostgreSQL, and the most memory it had; while entered."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._server = psutil.Process(system.made.server.pid)
        self._end = Event()
        self._thread = Thread(target=self._sample, daemon=True)
        self.peak_mb = self.own_s = self.postgres_s = 0.0

    def _sample(self) -> None:
        while not self._end.wait(0.5):
            total = 0.0
            for process in self._system.processes():
                with suppress(psutil.Error):
                    total += process.memory_info().rss / 1e6
            self.peak_mb = max(self.peak_mb, total)

    def _spent(self) -> tuple[float, float]:
        own = sum(_seconds(process) for process in self._system.processes())
        backends = [self._server, *self._server.children()]
        return own, sum(_seconds(process) for process in backends)

    def __enter__(self) -> "Use":
        self._before = self._spent()
        self._thread.start()
        return self

    def read(self) -> None:
        """CPU since it was entered, while the processes are there."""
        own, postgres = self._spent()
        self.own_s, self.postgres_s = own - self._before[0], postgres - self._before[1]

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def _drive(system: System, messages: int) -> dict[str, Any]:
    devices = len(system.made.devices)
    each = max(1, round(messages / devices))
    total = each * devices
    system.clear()
    with publishing(system, each) as fleet, system.connect() as conn, Use(system) as use:
        done = _Stored(system, conn, total)
        reader = _Read(done, use)
        account = flooding.follow(fleet, reader, total, patient=False)
    # what it kept back until it was asked says nothing about its rate
    messages, last_ns = done.unasked or (0, 0)
    if messages < total / 2:
        messages, last_ns = done.messages, done.grew_ns
    seconds = max(0.01, (last_ns - account["first_ns"]) / 1e9)
    points = done.messages * system.points
    return {
        "messages": total, "stored_messages": done.messages, "seconds": round(seconds, 2),
        "messages_per_second": round(messages / seconds),
        "readings_per_second": round(messages * system.points / seconds),
        "rss_mb": round(use.peak_mb, 1),
        "own_cpu_s_per_million": round(use.own_s / points * 1e6, 2) if points else None,
        "postgres_cpu_s_per_million": round(use.postgres_s / points * 1e6, 2) if points else None,
    }  # fmt: skip


class _Read:
    """Looks, and reads what was used at each look: the processes may be gone when it is over."""

    def __init__(self, done: _Stored, use: Use) -> None:
        self._done, self._use = done, use

    def look(self) -> int:
        if self._done.unasked is None:
            self._use.read()
        return self._done.look()

    @property
    def still_s(self) -> float:
        """Slow ones store once a second, or after their last lot has been asked for."""
        return max(0.0, self._done.still_s - _PATIENT_S)


def highest(system: System, seconds: float) -> dict[str, Any]:
    """Messages a second while the fleet is at most two of our batches ahead, for `seconds`.

    Short runs tell how long the one that counts has to be.
    """
    messages = system.trial
    while True:
        found = _restarted(system, messages)
        wanted = round(found["messages_per_second"] * seconds)
        if wanted < 2 * messages:
            return found
        messages = min(wanted, 20 * messages)


def _restarted(system: System, messages: float) -> dict[str, Any]:
    if not system.processes():
        system.start()
    return _drive(system, round(messages))


def killed(system: System, rate: float, seconds: float) -> dict[str, Any]:
    """SIGKILL to all of its processes at four tenths of a run, started again after a second.

    Every message carries its device's time. All are acknowledged to the device by the broker, which
    is not killed; what is not stored in the end is lost.
    """
    devices = len(system.made.devices)
    each = max(1, round(rate * seconds / devices))
    total = each * devices
    if not system.processes():
        system.start()
    system.clear()
    with publishing(system, each, rate) as fleet, system.connect() as conn:
        flooding.start(fleet, total)
        time.sleep(0.4 * total / rate)
        system.kill()
        time.sleep(_DOWN_S)
        system.launch()
        acknowledged = flooding.account(fleet)["messages"]
        _settle(system, conn, acknowledged)
    found = system.count()
    return {
        "rate": round(rate), "acknowledged": acknowledged * system.points,
        "stored": found.stored * system.points, "doubled": found.doubled * system.points,
        "missing": (acknowledged - found.stored + found.doubled) * system.points,
    }  # fmt: skip


def _settle(system: System, conn: psycopg.Connection, acknowledged: int) -> None:
    """Until everything is stored, or nothing has come for a while."""
    most, grew, finished = -1, time.monotonic(), False
    while time.monotonic() - grew < _PATIENT_S:
        now = system.stored(conn)
        if now > most:
            most, grew = now, time.monotonic()
        if now >= acknowledged:
            return
        if time.monotonic() - grew > 3 and not finished:
            system.finish()
            finished = True
        time.sleep(_COUNT_EVERY_S)


def rival_database(made: Stand, name: str) -> None:
    """A database for the others, with TimescaleDB."""
    postgres.create_database(made.cluster, name)
    with psycopg.connect(made.url_of(name), autocommit=True) as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
