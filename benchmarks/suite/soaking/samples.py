"""What is looked at every few seconds of a soak, and whether it stays flat."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import psycopg

from paqett.local.packets import open_connection, publish_packet
from suite.asking import Ask, Client
from suite.stand import TABLE, BenchmarkError, Stand

_ASKED = 10  # requests for `latest` in a sample
_VISIBLE_S = 60.0
_UPDATED = ("usage_hour", "allowance", "device", "broker_record", "alert", "api_key")
_ANON = "Pss_Anon:"
_TABLES = """
SELECT sum(n_dead_tup)::bigint, sum(n_live_tup)::bigint,
       (sum(pg_total_relation_size(relid)) FILTER (WHERE relname = ANY (%s)))::bigint
FROM pg_stat_user_tables WHERE schemaname = 'public' AND relname NOT LIKE 'telemetry%%'"""


@dataclass(frozen=True)
class Bound:
    """Growth over the second half of the run that still counts as flat: a share of the mean, or
    so many of its unit, whichever is more."""

    share: float
    units: float
    unit: str


BOUNDS = {
    "RSS": Bound(0.05, 5.0, "MB"),
    "private memory": Bound(0.10, 10.0, "MB"),
    "open files": Bound(0.05, 5.0, ""),
    "database connections": Bound(0.05, 3.0, ""),
    "dead rows": Bound(0.25, 20_000, ""),
    "tables that are updated": Bound(0.10, 8.0, "MB"),
    "publish to visible": Bound(0.25, 20.0, "ms"),
    "latest, p50": Bound(0.25, 3.0, "ms"),
    "latest, p99": Bound(0.50, 30.0, "ms"),
}


class Sampler:
    """Samples of one stand, each a flat row of figures."""

    def __init__(self, made: Stand, port: int, key: str, every_s: float) -> None:
        self._made, self._every_s = made, every_s
        self._conn = made.connect()
        self._client = Client(port, key)
        self._asked = Ask("latest", f"/api/v1/devices/{made.devices[0].id}/latest", "")
        self._probe = made.devices[-2]
        self._mqtt = open_connection(made.ports["plain"], self._probe.id, self._probe.secret)
        self._series = 0
        self.rows: list[dict[str, float]] = []
        self.answers: list[tuple[float, float]] = []  # seconds since the start, ms

    def sample_until(self, stop: Event) -> None:
        """A work for `meanwhile`."""
        self._began = time.monotonic()
        while not stop.is_set():
            self.rows.append({"s": round(time.monotonic() - self._began, 1), **self._sample()})
            stop.wait(self._every_s)
        self._mqtt.close()

    def _sample(self) -> dict[str, float]:
        found = {}
        for name, process in self._processes().items():
            with suppress(psutil.Error):
                found[f"RSS · {name}"] = round(process.memory_info().rss / 1e6, 1)
                found[f"open files · {name}"] = process.num_fds()
        found["private memory · postgres"] = round(self._postgres_mb(), 1)
        found |= self._of_database()
        found["publish to visible"] = self._visible_ms()
        self._ask()
        return found

    def _processes(self) -> dict[str, psutil.Process]:
        found = {name: psutil.Process(self._made.pid(name)) for name in self._made.running}
        return found | {"mosquitto": self._made.mosquitto()}

    def _postgres_mb(self) -> float:
        """Of all backends together, the buffers they share left out."""
        server = psutil.Process(self._made.server.pid)
        total = 0
        for process in (server, *server.children()):
            with suppress(OSError):
                told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in told.splitlines() if _ANON in line)
        return total / 1000

    def _of_database(self) -> dict[str, float]:
        row = self._conn.execute(_TABLES, (list(_UPDATED),)).fetchone()
        connections = self._conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'paqett %'"
            " AND application_name <> 'paqett soak'"
        ).fetchone()
        assert row is not None
        assert connections is not None
        return {
            "dead rows": row[0], "live rows": row[1],
            "tables that are updated": round(row[2] / 1e6, 1),
            "database connections": connections[0],
        }  # fmt: skip

    def _visible_ms(self) -> float:
        """From the publish of one reading until SQL shows it."""
        now = time.time_ns() // 1000
        began = time.perf_counter()
        body = b'{"ts":%d,"probe":1}' % now
        topic = f"paqett/v1/{self._probe.id}/telemetry"
        self._mqtt.sendall(publish_packet(topic, body, 1, len(self.rows) % 65_535 + 1))
        while not self._is_stored(now):
            if time.perf_counter() - began > _VISIBLE_S:
                raise BenchmarkError(f"a reading is not visible\n{self._made.log_tail()}")
            time.sleep(0.002)
        self._mqtt.recv(4096)
        return round(1000 * (time.perf_counter() - began), 1)

    def _is_stored(self, time_us: int) -> bool:
        if not self._series:
            self._series = self._series_of(self._conn)
        statement = (
            f"SELECT 1 FROM {TABLE} WHERE series_id = %s"
            " AND time = timestamptz 'epoch' + %s * interval '1 microsecond'"
        )
        return self._conn.execute(statement, (self._series, time_us)).fetchone() is not None

    def _series_of(self, conn: psycopg.Connection) -> int:
        row = conn.execute(
            "SELECT id FROM series WHERE device_id = %s AND metric = 'probe'", (self._probe.id,)
        ).fetchone()
        return int(row[0]) if row else 0

    def _ask(self) -> None:
        self._client.reconnect()  # the server gives up a connection that was idle for five seconds
        for _ in range(_ASKED):
            began = time.perf_counter()
            self._client.ask(self._asked)
            now = time.perf_counter()
            self.answers.append((time.monotonic() - self._began, 1000 * (now - began)))

    def answers_by(self, window_s: float) -> dict[str, tuple[list[float], list[float]]]:
        """Seconds and values of `latest`, p50 and p99 of each window."""
        found: dict[str, tuple[list[float], list[float]]] = {}
        windows: dict[int, list[float]] = {}
        for at, ms in self.answers:
            windows.setdefault(int(at / window_s), []).append(ms)
        for name, quantile in (("latest, p50", 50), ("latest, p99", 99)):
            at = [(number + 0.5) * window_s for number in windows]
            values = [round(float(np.percentile(ms, quantile)), 2) for ms in windows.values()]
            found[name] = (at, values)
        return found


def judge(name: str, seconds: list[float], values: list[float]) -> dict[str, Any]:
    """Growth over the second half: the median of all slopes between two samples, times its length.

    The median, since a storm or an export makes some samples stand out. What shrinks is flat too.
    """
    bound = BOUNDS[name.partition(" · ")[0]]
    half = len(values) // 2
    at, late = np.array(seconds[half:]), np.array(values[half:], dtype=float)
    first, second = np.triu_indices(len(late), 1)
    apart = at[second] - at[first]
    slope = float(np.median((late[second] - late[first]) / apart)) if len(apart) else 0.0
    growth = slope * float(at[-1] - at[0])
    allowed = max(bound.share * float(late.mean()), bound.units)
    return {
        "name": name, "unit": bound.unit, "samples": len(values),
        "first_half": round(float(np.median(values[:half] or values)), 2),
        "second_half": round(float(np.median(late)), 2), "most": round(float(max(values)), 2),
        "growth": round(growth, 2), "allowed": round(allowed, 2), "flat": growth <= allowed,
    }  # fmt: skip
