"""What so many devices take: costs measured here, a model of them, and what ends first.

The CPU of each process is taken as `a second + a message + a reading`, solved from three loads:
messages of 30 points at the highest rate, and of 3 points, one by one, at half of it and at a low
one, where batches are small. Two other loads check it. The rest is counted while that goes on:
bytes of the network, of WAL and of tables, and the CPU of a query.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

import report
from paqett import db, keys
from paqett.local.shape import Shape
from paqett.settings import load
from suite.asking import Ask, Client
from suite.cpu import spent
from suite.form import Form
from suite.load import Load, Run, drive
from suite.measured import SINGLE, TENS, sized
from suite.model import GROUPS, Costs, size
from suite.stand import TABLE, Stand, stand

SIZES = (10_000, 1_000_000, 10_000_000)
_LOW, _MIDDLE = 300.0, 3_000.0  # messages a second
_QUERIES = {"full": 1000, "quick": 200}


@dataclass(frozen=True)
class Seen:
    """A load, the CPU of each group, and bytes of loopback and of WAL."""

    name: str
    run: Run
    wire_bytes: int
    wal_bytes: int

    @property
    def terms(self) -> list[float]:
        """What its CPU is made of: seconds, messages, readings."""
        return [self.run.seconds, self.run.messages, self.run.rows]


def _wire() -> int:
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


def _wal(made: Stand) -> int:
    row = made.conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return int(row[0]) if row else 0


def _see(made: Stand, name: str, load_: Load) -> Seen:
    before: list[int] = []
    run = drive(made, load_, lambda: before.extend((_wire(), _wal(made))))
    return Seen(name, run, _wire() - before[0], _wal(made) - before[1])


def _even(form: Form, rate: float, seconds: float) -> tuple[str, Load]:
    """Messages of 3 points, one after the other, as devices send them that know nothing of another:
    no packet shares a system call."""
    messages = max(form.devices, round(rate * seconds))
    return f"messages of 3 points at {rate:,.0f}/s", Load(SINGLE, messages, rate=rate)


def _solve(seen: list[Seen]) -> dict[str, list[float]]:
    """CPU seconds of each group for a second, a message and a reading; none below nothing."""
    terms = np.array([one.terms for one in seen])
    scale = terms.max(axis=0)
    found = {}
    for group in GROUPS:
        spent_s = np.array([one.run.cpu_seconds[group] for one in seen])
        kept = list(range(3))
        while True:  # a term that came out negative is noise around nothing
            part = terms[:, kept] / scale[kept]
            solved = np.linalg.lstsq(part, spent_s, rcond=None)[0] / scale[kept]
            if (solved >= 0).all() or len(kept) == 1:
                break
            kept.pop(int(np.argmin(solved * scale[kept])))
        values = np.zeros(3)
        values[kept] = np.maximum(solved, 0)
        found[group] = [float(value) for value in values]
    return found


def _check(seen: Seen, cpu: dict[str, list[float]]) -> dict[str, Any]:
    """The model's CPU against what was measured, in all and of each group."""
    groups = {
        group: (float(np.dot(cpu[group], seen.terms)), seen.run.cpu_seconds[group])
        for group in GROUPS
    }
    predicted, measured = (sum(pair[n] for pair in groups.values()) for n in (0, 1))
    return {
        "name": seen.name, "predicted_cpu_s": round(predicted, 2),
        "measured_cpu_s": round(measured, 2), "off": round(predicted / measured - 1, 3),
        "groups": {name: [round(value, 2) for value in pair] for name, pair in groups.items()},
    }  # fmt: skip


def _row_bytes(made: Stand) -> float:
    """Of the tier's hypertable with its index, for each reading in it."""
    row = made.conn.execute(
        f"SELECT hypertable_size('{TABLE}')::float8 / greatest(1, count(*)) FROM {TABLE}"
    ).fetchone()
    return float(row[0]) if row else 0.0


async def _key(made: Stand) -> str:
    async with await db.connect(load(made.environ).database, "bench") as conn:
        account = made.devices[0].account_id
        return (await keys.create(conn, account, "capacity", ["telemetry:read"], None, None)).key


def _query_cpu(made: Stand, times: int) -> dict[str, float]:
    """CPU seconds of the API and of PostgreSQL for the `latest` of one device."""
    port = made.start_api("bench")
    client = Client(port, asyncio.run(_key(made)))
    asked = Ask("latest", f"/api/v1/devices/{made.devices[0].id}/latest", "")
    for _ in range(20):
        client.ask(asked)
    server = psutil.Process(made.server.pid)
    backends = [server, *server.children()]
    api = psutil.Process(made.pid("api-bench"))
    before = spent(api), sum(spent(one) for one in backends)
    for _ in range(times):
        client.ask(asked)
    return {
        "api": (spent(api) - before[0]) / times,
        "postgres": (sum(spent(one) for one in backends) - before[1]) / times,
    }


def _storm(form: Form) -> dict[str, float]:
    """What the part `storm` found in this form: connections a second, and bytes for each device.
    Nothing where it has not been measured."""
    found = report.read("storm", report.folder(form.name))
    if found is None:
        return {}
    dropped = found["figures"][0]
    return {
        "connections_per_second": found["devices"] / dropped["connected_s"],
        "mosquitto_bytes_a_device": found["mosquitto_bytes_a_device"],
        "ingest_bytes_a_device": found["ingest_bytes_a_device"],
    }


def run(form: Form) -> dict[str, Any]:
    """Calibrate, check, extrapolate."""
    storm = _storm(form)
    with stand(form.devices) as made:
        made.start()
        highest = drive(made, sized(made, SINGLE, form.seconds)).messages_per_second
        seen = [
            _see(made, *_even(form, _LOW, 2 * form.seconds)),
            _see(made, "messages of 30 points", sized(made, TENS, form.seconds)),
            _see(made, *_even(form, highest / 2, form.seconds)),
        ]
        row_bytes = _row_bytes(made)
        cpu = _solve(seen)
        seen.append(_see(made, *_even(form, _MIDDLE, form.seconds)))
        nines = sized(made, Shape(items=3), form.seconds)
        checks = [_check(one, cpu) for one in (seen[-1], _see(made, "messages of 9 points", nines))]
        time.sleep(1)
        query = _query_cpu(made, _QUERIES[form.name])
        idle = psutil.Process(made.pid("ingest")).memory_info().rss
    costs = Costs(
        cpu=cpu,
        wire_bytes_a_message=seen[3].wire_bytes / seen[3].run.messages,
        wal_bytes_a_reading=seen[2].wal_bytes / seen[2].run.rows,
        disk_bytes_a_reading=row_bytes,
        query_cpu=query,
        ingest_bytes=idle,
        **storm,
    )
    return {
        "costs": costs.report(), "checks": checks,
        "figures": [size(costs, devices) for devices in SIZES],
        "loads": [{"name": one.name, **one.run.report()} for one in seen],
    }  # fmt: skip
