"""A reconnect storm: every device at once, and how long until all is as it was.

Each device sends a message of 3 metrics a minute and one whenever it has connected. Once all
connections are dropped at the devices' side, as when a network comes back; once Mosquitto is
killed, so that everybody has to wait for it besides. The clock starts with the drop or the kill.
"""

import os
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psutil

from suite.crowding import Crowd, crowd, most_devices
from suite.form import Form
from suite.stand import TABLE, BenchmarkError, Stand, stand

DEVICES = {"full": 20_000, "quick": 2_000}
_ROUNDS = {"full": 3, "quick": 1}
_INTERVAL_S = 60.0
_LONGEST_S = 180.0
_METRICS = 3


def _stored_s(made: Stand, devices: int, since_us: int, began: float) -> float:
    """Until a reading of each device that was measured since is stored."""
    statement = (
        f"SELECT count(DISTINCT series_id) FROM {TABLE} WHERE time >= to_timestamp(%s / 1e6)"
    )
    while True:
        row = made.conn.execute(statement, (since_us,)).fetchone()
        passed = time.monotonic() - began
        if row and row[0] >= devices * _METRICS:
            return passed
        if passed > _LONGEST_S:
            raise BenchmarkError(f"{row} of {devices * _METRICS} series\n{made.log_tail()}")
        time.sleep(0.1)


def _rss(made: Stand) -> dict[str, int]:
    found = {"mosquitto": made.mosquitto(), "ingest": psutil.Process(made.pid("ingest"))}
    return {name: process.memory_info().rss for name, process in found.items()}


def _round(made: Stand, people: Crowd, devices: int, drop: Callable[[], None]) -> dict[str, Any]:
    made.conn.execute(f"TRUNCATE {TABLE}")
    since_us, began = time.time_ns() // 1000, time.monotonic()
    drop()
    told = people.answer()
    return {**told, "stored_s": round(_stored_s(made, devices, since_us, began), 3)}


def _figure(name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    middle = {
        key: round(median(one[key] for one in rounds), 2)
        for key in ("connected_s", "acknowledged_s", "stored_s", "failed")
    }
    return {"name": name, **middle, "rounds": rounds}


def run(form: Form) -> dict[str, Any]:
    """By turns."""
    devices = most_devices(DEVICES[form.name])
    reconnects: list[dict[str, Any]] = []
    kills: list[dict[str, Any]] = []
    with stand(devices) as made:
        made.start()
        before = _rss(made)
        with crowd(made, devices, _INTERVAL_S) as (people, first):
            grown = {name: now - before[name] for name, now in _rss(made).items()}
            for _ in range(_ROUNDS[form.name]):
                reconnects.append(_round(made, people, devices, lambda: people.begin("storm")))

                def kill() -> None:
                    people.begin("wait")
                    os.kill(made.mosquitto().pid, signal.SIGKILL)

                time.sleep(2)
                kills.append(_round(made, people, devices, kill))
                time.sleep(2)
            how = people.ask("how")
    return {
        "devices": devices, "wanted_devices": DEVICES[form.name], "first": first, "how": how,
        **{f"{name}_bytes_a_device": round(grown[name] / devices) for name in grown},
        "figures": [
            _figure("every connection dropped", reconnects), _figure("Mosquitto killed", kills),
        ],
    }  # fmt: skip
