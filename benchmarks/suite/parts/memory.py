"""The memory of ingest over many rows: its RSS, sampled every second."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean
from threading import Event, Thread
from typing import Any

import psutil

from suite.form import Form
from suite.load import Load, drive
from suite.measured import TENS, sized
from suite.stand import stand


@contextmanager
def _sampled(pid: int, samples: list[float]) -> Iterator[None]:
    """Append the process's RSS in MB to `samples` every second while inside."""
    process, end = psutil.Process(pid), Event()

    def sample() -> None:
        while True:
            samples.append(round(process.memory_info().rss / 1e6, 1))
            if end.wait(1):
                return

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def run(form: Form) -> dict[str, Any]:
    """Messages of 30 points; the first quarter of the time against the last."""
    samples: list[float] = []
    with stand(form.devices) as made:
        made.start()
        sized(made, TENS, form.seconds)  # so that the process has done its work before
        load = Load(TENS, form.memory_rows // TENS.points)
        with _sampled(made.pid("ingest"), samples):
            done = drive(made, load)
    # the fleet connects and encodes before the load begins: RSS stands still meanwhile
    loaded = samples[-max(4, round(done.seconds)) :]
    quarter = max(1, len(loaded) // 4)
    first, last = mean(loaded[:quarter]), mean(loaded[-quarter:])
    return {
        "load": done.report(),
        "rss_mb": loaded,
        "first_quarter_mb": round(first, 1),
        "last_quarter_mb": round(last, 1),
        "growth": round(last / first - 1, 4),
    }
