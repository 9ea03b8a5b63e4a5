"""Ports for tests: one that was given stays this process's own, whoever else runs tests here."""

import fcntl
import os
import tempfile
from pathlib import Path

from paqett import children

_held: dict[int, int] = {}  # the lock's file, by port


def free_port(wanted: int, taken: tuple[int, ...] = ()) -> int:
    """A port that nothing listens on and no other tests were given, from where `wanted` says on.

    Between the look and the listening somebody else may look, and from 32,768 on a connection may
    take it: so it is one from 20,000 on, by the last four digits of `wanted`. Raises `OSError`.
    """
    wanted = 20_000 + wanted % 10_000
    folder = Path(tempfile.gettempdir()) / "paqett-test-ports"
    folder.mkdir(exist_ok=True)
    while True:
        port = children.free_port(wanted, taken=taken)
        if port in _held:
            return port
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            wanted = port + 1
        else:
            _held[port] = lock
            return port
