"""Paqett beside what else takes MQTT into PostgreSQL: rate, what a kill loses, memory, CPU.

One machine, one cluster, one Mosquitto with one configuration, one publisher, one run. The others
are installed into a folder of their own (`suite.rivals.scratch`) and configured as well as each
can be.
"""

import platform
from contextlib import ExitStack
from typing import Any

from suite.form import Form
from suite.rivals import broker, driving
from suite.rivals.collectd import Collectd
from suite.rivals.copying import Copying
from suite.rivals.esphome import Esphome
from suite.rivals.nodered import NodeRed, NodeRedBatched
from suite.rivals.paqett import Paqett, PaqettSingle
from suite.rivals.system import DATABASE, System
from suite.stand import Stand, stand

OURS: tuple[type[System], ...] = (Paqett, PaqettSingle)
OTHERS: tuple[type[System], ...] = (NodeRed, NodeRedBatched, Copying, Collectd, Esphome)
DEVICES = {"full": 1000, "quick": 200}
MOST_KILLED_RATE = 5_000.0  # messages a second; half of the highest rate where that is less


def _measure(made: Stand, kind: type[System], form: Form) -> dict[str, Any]:
    folder = made.folder / kind.__name__.lower()
    folder.mkdir()
    system = kind(made, folder)
    system.prepare()
    system.start()
    try:
        fastest = driving.highest(system, form.seconds)
        print(f"{kind.name} ({system.version}): {fastest['messages_per_second']:,}/s", flush=True)
        rate = max(1.0, min(MOST_KILLED_RATE, fastest["messages_per_second"] / 2))
        lost = driving.killed(system, rate, form.seconds)
    finally:
        if kind in OTHERS:
            system.kill()
    return {
        "name": kind.name, "version": system.version, "points": system.points,
        "promise": kind.promise, "needs": kind.needs, **fastest, "killed": lost,
    }  # fmt: skip


def run(form: Form) -> dict[str, Any]:
    """Ours first, then a broker that lets the others use topics of their own."""
    figures = []
    with ExitStack() as cleaning:
        made = cleaning.enter_context(stand(DEVICES[form.name]))
        made.start()
        figures += [_measure(made, kind, form) for kind in OURS]
        for name in made.running:
            if name != "broker":
                made.end(name)
        made.end("broker")
        driving.rival_database(made, DATABASE)
        cleaning.enter_context(broker.opened(made))
        figures += [_measure(made, kind, form) for kind in OTHERS]
    return {"figures": figures, "kernel": platform.release()}
