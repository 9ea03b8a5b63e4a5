"""Child processes that leave no orphans: they die with the process that started them."""

import ctypes
import os
import pwd
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # <sys/prctl.h>
_OURS = ("PAQETT_", "PG")


def die_with_parent(stop_signal: int, user: str | None = None) -> Callable[[], None]:
    """For `preexec_fn`: become `user`, and get `stop_signal` when the parent dies.

    The order matters: the kernel forgets the death signal when the user changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        if user is not None:
            entry = pwd.getpwnam(user)
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def hide() -> None:
    """Close this process's memory and environment to others of its user, root excepted.

    They hold passwords; without it whatever runs as the same user can trace it. Costs core dumps.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program of others: without our settings and PostgreSQL's."""
    return {name: text for name, text in environ.items() if not name.startswith(_OURS)}


def free_port(wanted: int, taken: tuple[int, ...] = ()) -> int:
    """`wanted`, or the next port above it that is free on every address. Raises `OSError`."""
    for port in range(wanted, wanted + 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {wanted} to {wanted + 199}")


def service_user(name: str) -> str | None:
    """The user a server runs as: `name` when we are root and it exists, else ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        return None
    return name


def give(path: Path, user: str | None) -> None:
    """Make `path` the user's."""
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
