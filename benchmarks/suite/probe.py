"""From publish to visible: readings of probe devices, and when SQL first shows them.

    python -m suite.probe

Reads one JSON line, the job, and prints one JSON line. A probe carries the time it is published
at; the prober asks for newer readings of the probes' series, over the index, in a loop. A reading
may have been visible since just after the last look before the one that found it, so what is
reported is too long by up to one round of that loop; the rounds are reported with it.
"""

import json
import select
import sys
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from paqett.local.packets import open_connection, publish_packet

METRIC = "probe"
_PAUSE_S = 0.001
_LOOK = """\
SELECT time_us, device_id FROM (
    SELECT (extract(epoch FROM t.time) * 1000000)::bigint AS time_us, t.series_id
    FROM telemetry_own t WHERE t.series_id = ANY(%s) AND t.time > to_timestamp(%s)
) r JOIN series s ON s.id = r.series_id
"""


@dataclass(frozen=True)
class Job:
    """Each of `devices` in turn publishes, every `interval_s`, for `seconds`."""

    devices: list[tuple[str, str]]
    port: int
    database: str
    seconds: float
    interval_s: float = 0.02


class Prober:
    """Publishes and looks, by turns."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._conns = [open_connection(job.port, *device) for device in job.devices]
        self._db = psycopg.connect(job.database, autocommit=True, application_name="probe")
        self._db.prepare_threshold = 0
        self._waiting: set[tuple[int, str]] = set()
        self._series: list[int] = []
        self._turn = 0
        self._latencies: list[float] = []
        self._rounds: list[float] = []

    def _publish(self) -> None:
        turn = self._turn % len(self._conns)
        self._turn += 1
        conn, (device, _) = self._conns[turn], self._job.devices[turn]
        while select.select([conn], [], [], 0)[0]:
            if not conn.recv(4096):
                raise ConnectionError("the broker closed a probe's connection")
        now = time.time_ns() // 1000
        body = b'{"ts":%d,"%s":1}' % (now, METRIC.encode())
        self._waiting.add((now, device))
        number = self._turn % 65_535 + 1
        conn.sendall(publish_packet(f"paqett/v1/{device}/telemetry", body, 1, number))

    def _look(self) -> None:
        since = min(self._waiting)[0] / 1e6 - 0.001
        found = self._db.execute(_LOOK, (self._series, since)).fetchall()
        now = time.time_ns() // 1000
        for time_us, device in found:
            if (time_us, device) in self._waiting:
                self._waiting.remove((time_us, device))
                self._latencies.append((now - time_us) / 1e6)

    def _make_series(self) -> None:
        """One reading of each, so that every series exists before the measurement."""
        for _ in self._conns:
            self._publish()
        devices = [device for device, _ in self._job.devices]
        while len(self._series) < len(devices):
            time.sleep(0.05)
            rows = self._db.execute(
                "SELECT id FROM series WHERE metric = %s AND device_id = ANY(%s)", (METRIC, devices)
            )
            self._series = [row[0] for row in rows]
        self._waiting.clear()

    def run(self) -> dict[str, Any]:
        """Latencies and rounds in seconds, and how many readings were never seen."""
        self._make_series()
        end = time.monotonic() + self._job.seconds
        due = last = time.monotonic()
        while (now := time.monotonic()) < end or (self._waiting and now < end + 10):
            if now >= due and now < end:
                self._publish()
                due = max(due + self._job.interval_s, now - 1)
            if self._waiting:
                self._look()
                self._rounds.append(now - last)
            last = now
            time.sleep(_PAUSE_S)
        for conn in self._conns:
            conn.sendall(b"\xe0\x00")
        return {
            "latencies": self._latencies, "rounds": self._rounds, "unseen": len(self._waiting)
        }  # fmt: skip


def main() -> None:
    """Take the job from standard input and do it."""
    values = json.loads(sys.stdin.readline())
    values["devices"] = [tuple(device) for device in values["devices"]]
    print(json.dumps(Prober(Job(**values)).run()), flush=True)


if __name__ == "__main__":
    main()
