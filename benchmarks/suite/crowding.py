"""Drive a crowd of devices that is a process of its own (`suite.crowd`)."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Lock
from typing import Any

from paqett.children import die_with_parent
from suite.crowd import Job
from suite.stand import BENCHMARKS, BenchmarkError, Stand

_SPARE_FILES = 300  # that a broker needs besides a connection for each device


def most_devices(wanted: int) -> int:
    """As many as the limit of open files, raised as far as it goes, lets one broker have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, hard - _SPARE_FILES)


class Crowd:
    """Its process; one command at a time."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lock = Lock()

    def answer(self) -> dict[str, Any]:
        """The next line it tells. Raises `BenchmarkError` where it has ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise BenchmarkError("the crowd has ended")
        return dict(json.loads(line))

    def begin(self, command: str) -> None:
        """Give a command whose answer is asked for by `answer`."""
        assert self._child.stdin is not None
        self._child.stdin.write(command.encode() + b"\n")

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        with self._lock:
            self.begin(command)
            return self.answer()


@contextmanager
def crowd(made: Stand, devices: int, interval_s: float) -> Iterator[tuple[Crowd, dict[str, Any]]]:
    """The first `devices` of the stand's, connected, and how long that took them."""
    job = Job(
        [(device.id, device.secret) for device in made.devices[:devices]],
        made.ports["plain"], interval_s,
    )  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "suite.crowd"], cwd=BENCHMARKS, bufsize=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent(signal.SIGKILL),
    )  # fmt: skip
    try:
        assert child.stdin is not None
        child.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        made_crowd = Crowd(child)
        yield made_crowd, made_crowd.answer()
    finally:
        child.kill()
        child.wait()
