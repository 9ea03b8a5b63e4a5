"""Drive a fleet that is a process of its own (`flood`), and follow what becomes of its messages."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from paqett.children import die_with_parent
from paqett.errors import PaqettError
from paqett.local.flood import Job

BACKLOG = 20_000
"""Messages the fleet may be ahead of the commits, two batches of ingest's: Mosquitto acknowledges
from memory, so without this bound a run would measure how fast it fills up, and then ingest on an
idle machine."""
_POLL_S = 0.05
_STALLED_S = 30.0


class FloodFailed(PaqettError):
    """The fleet did not start, ended early, or its messages do not arrive."""


class Progress(Protocol):
    """Messages done so far: `look` reads the number anew, `still_s` is how long it has stood."""

    def look(self) -> int: ...

    @property
    def still_s(self) -> float: ...


@contextmanager
def flooding(
    job: Job, program: Sequence[str] = ("paqett.local.flood",), folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The fleet's process, connected and ready; killed if the run fails. Raises `FloodFailed`.

    `program` is its module and what that is given, run in `folder` or in the current one.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", *program], cwd=folder,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )  # fmt: skip
    try:
        assert child.stdin is not None  # noqa: S101 - asked for above
        assert child.stdout is not None  # noqa: S101 - asked for above
        child.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        if child.stdout.readline() != b"ready\n":
            raise FloodFailed("the fleet did not start")
        with child.stdin, child.stdout:
            yield child
            child.wait(30)
    finally:
        child.kill()
        child.wait()


def follow(
    child: subprocess.Popen[bytes], done: Progress, total: int, *, patient: bool = True
) -> dict[str, Any]:
    """Give leave as messages are done; the fleet's own account once the last of `total` is.

    Without `patience` also once nothing has come for 3 s. Raises `FloodFailed`.
    """
    leave = 0
    while True:
        number = done.look()
        if leave < total:
            leave = min(total, number + BACKLOG)
            _tell(child, leave)
        elif number >= total or (not patient and done.still_s > 3):
            return account(child)
        if done.still_s > _STALLED_S or child.poll():
            raise FloodFailed(f"stuck at {number} of {total} messages")
        time.sleep(_POLL_S if leave < total else _POLL_S / 10)


def start(child: subprocess.Popen[bytes], messages: int) -> None:
    """Start the clock, with leave for all of `messages`: for a load with a rate of its own."""
    _tell(child, messages)


def acknowledged(child: subprocess.Popen[bytes]) -> int:
    """How many messages are acknowledged so far. Raises `FloodFailed` where the run has ended."""
    assert child.stdin is not None  # noqa: S101 - a pipe, see `flooding`
    assert child.stdout is not None  # noqa: S101 - a pipe, see `flooding`
    child.stdin.write(b"how\n")
    line = child.stdout.readline()
    if not line.strip().isdigit():
        raise FloodFailed("the run has ended")
    return int(line)


def end(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """End the run early: the fleet's own account, once the last message is acknowledged."""
    assert child.stdin is not None  # noqa: S101 - a pipe, see `flooding`
    child.stdin.write(b"end\n")
    return account(child)


def account(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The fleet's own account, once the last message is acknowledged. Raises `FloodFailed`."""
    assert child.stdout is not None  # noqa: S101 - a pipe, see `flooding`
    line = child.stdout.readline()
    if not line:
        raise FloodFailed("the fleet ended early")
    return dict(json.loads(line))


def _tell(child: subprocess.Popen[bytes], leave: int) -> None:
    assert child.stdin is not None  # noqa: S101 - a pipe, see `flooding`
    child.stdin.write(b"%d\n" % leave)
