"""Hours of work in half an hour: what grows, and what stays as it is.

10,000 devices at sixteen times a message a minute; beside them storms of reconnects, moves between
tiers, exports, retention, alerts, keys and secrets that come and go. Each figure is judged by its
growth over the second half of the run.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paqett import db, keys
from paqett.settings import load
from suite.crowding import Crowd, crowd, most_devices
from suite.form import Form
from suite.meanwhile import meanwhile
from suite.soaking.samples import Sampler, judge
from suite.soaking.works import Works
from suite.stand import TABLE, BenchmarkError, Stand, stand

_METRICS = ("temperature", "humidity", "battery")
_SPARE = 2  # the probe, and the device whose secret changes
_SETTLE_S = 60.0


@dataclass(frozen=True)
class Length:
    """Devices, seconds, seconds between two samples and of a window of answers; `scale` of 1
    leaves five minutes between two storms."""

    devices: int
    seconds: float
    every_s: float
    window_s: float
    scale: float


LENGTHS = {
    "full": Length(10_000, 1800, 5, 60, 1.0), "quick": Length(2_000, 80, 2, 10, 0.1),
}  # fmt: skip
_INTERVAL_S = 60 / 16


async def _key(made: Stand) -> str:
    async with await db.connect(load(made.environ).database, "soak") as conn:
        account = made.devices[0].account_id
        return (await keys.create(conn, account, "sampler", ["telemetry:read"], None, None)).key


def _balance(made: Stand, people: Crowd) -> dict[str, int]:
    """Points acknowledged to the devices against those stored; waits for the last ones."""
    spare = [device.id for device in made.devices[-_SPARE:]]
    deadline = time.monotonic() + _SETTLE_S
    while True:
        how = people.ask("how")
        row = made.conn.execute(
            f"SELECT count(*) FROM {TABLE}"
            " JOIN series ON series.id = series_id"
            " WHERE metric = ANY (%s) AND device_id <> ALL (%s)",
            (list(_METRICS), spare),
        ).fetchone()
        if row is None:
            raise BenchmarkError("no count")
        sent, owed = (how[key] * len(_METRICS) for key in ("published", "acknowledged"))
        if row[0] >= owed or time.monotonic() > deadline:
            return {
                "published": sent, "acknowledged": owed,
                "stored": row[0],
                "doubled": max(0, row[0] - sent), "missing": max(0, owed - row[0]),
                "connections_lost": how["lost"],
            }  # fmt: skip
        time.sleep(1)


def _judged(sampler: Sampler, window_s: float) -> Iterator[tuple[str, list[float], list[float]]]:
    rows = sampler.rows
    for name in rows[0]:
        if name not in ("s", "live rows"):
            kept = [row for row in rows if name in row]
            yield name, [row["s"] for row in kept], [row[name] for row in kept]
    for name, (at, values) in sampler.answers_by(window_s).items():
        yield name, at, values


def run(form: Form) -> dict[str, Any]:
    """All of it at once, then the balance of what was acknowledged."""
    length = LENGTHS[form.name]
    devices = most_devices(length.devices)
    with stand(devices + _SPARE) as made:
        made.start()
        port = made.start_api("bench")
        made.start_worker()
        sampler = Sampler(made, port, asyncio.run(_key(made)), length.every_s)
        with crowd(made, devices, _INTERVAL_S) as (people, first):
            works = Works(made, port, people)
            with meanwhile(sampler.sample_until, *works.all(length.scale)):
                time.sleep(length.seconds)
            alerts = made.conn.execute("SELECT count(*) FROM alert").fetchone()
            balance = _balance(made, people)
    series = list(_judged(sampler, length.window_s))
    return {
        "devices": devices, "wanted_devices": length.devices, "seconds": length.seconds,
        "messages_per_second": round(devices / _INTERVAL_S), "first": first,
        "done": dict(works.done) | {"alerts": alerts[0] if alerts else 0}, "storms": works.storms,
        "balance": balance, "figures": [judge(*one) for one in series],
        "series": {name: {"s": at, "values": values} for name, at, values in series},
    }  # fmt: skip
