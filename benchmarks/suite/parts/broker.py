"""The broker's own ceiling: the same load, read by somebody who acknowledges and does no more."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from paqett.children import die_with_parent
from paqett.local.flooding import follow
from paqett.mqtt.credentials import writer_client_id
from suite import ceiling
from suite.cpu import spent
from suite.form import Form
from suite.load import Load, drive, publisher
from suite.measured import SINGLE, TENS
from suite.stand import BENCHMARKS, BenchmarkError, Stand, stand


class _Read:
    """How many messages the reader has acknowledged, as `suite.load` follows commits."""

    def __init__(self, counter: Path) -> None:
        self._counter = counter
        self._base = self._now()
        self.messages = 0
        self.grew_ns = time.monotonic_ns()

    def _now(self) -> int:
        return int.from_bytes(self._counter.read_bytes(), "little")

    def look(self) -> int:
        now = self._now() - self._base
        if now > self.messages:
            self.messages, self.grew_ns = now, time.monotonic_ns()
        return now

    @property
    def still_s(self) -> float:
        return (time.monotonic_ns() - self.grew_ns) / 1e9


@contextmanager
def _reader(made: Stand, counter: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The reader in ingest's place."""
    counter.write_bytes(bytes(8))
    child = subprocess.Popen(
        [
            sys.executable, "-m", "suite.reader", str(made.ports["platform"]),
            writer_client_id("writer"), "paqett.ingest", "writer", str(counter),
        ],
        cwd=BENCHMARKS, stdout=subprocess.PIPE, preexec_fn=die_with_parent(signal.SIGKILL),
    )  # fmt: skip
    try:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise BenchmarkError(f"the reader did not start\n{made.log_tail()}")
        yield child
    finally:
        child.kill()
        child.wait()


def run(form: Form) -> dict[str, Any]:
    """Messages a second through the broker alone, and what ingest could make of them at most."""
    figures = []
    with stand(form.devices) as made:
        made.start()
        drive(made, Load(SINGLE, form.devices))  # the series, for the ceiling
        ceilings = {id(s): ceiling.measure(made, s, form.ceiling_rows) for s in (SINGLE, TENS)}
        made.end("ingest")
        with _reader(made, made.folder / "counter") as child:
            for name, shape in (("messages of 3 points", SINGLE), ("messages of 30 points", TENS)):
                load = Load(shape, 100_000 if form.name == "quick" else 500_000)
                before = {n: spent(p) for n, p in _processes(made, child).items()}
                reads = _Read(made.folder / "counter")
                each = load.messages // len(made.devices)
                with publisher(made, load, each) as fleet:
                    total = each * len(made.devices)
                    done = follow(fleet, reads, total)
                seconds = (reads.grew_ns - done["first_ns"]) / 1e9
                after = {n: spent(p) for n, p in _processes(made, child).items()}
                rate = total / seconds
                figures.append(
                    {
                        "name": name,
                        "messages_per_second": round(rate),
                        "rows_per_second": round(rate * shape.points),
                        "of_ceiling": round(rate * shape.points / ceilings[id(shape)], 3),
                        "ceiling": round(ceilings[id(shape)]),
                        "cpu_us_a_message": {
                            "publisher": round(done["cpu_s"] / total * 1e6, 1),
                            **{n: round((after[n] - before[n]) / total * 1e6, 1) for n in after},
                        },
                    }
                )
    return {"figures": figures}


def _processes(made: Stand, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    return {"mosquitto": made.mosquitto(), "reader": psutil.Process(child.pid)}
