"""The command `paqett` for shell scripts of tests, without a second of imports at each call.

A process imports the program once and forks for each call, with the caller's streams, folder and
environment; what is run is the program's own `main`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paqett.children import die_with_parent

_CALL = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.connect({address!r})
    call = {{"argv": sys.argv[1:], "folder": os.getcwd(), "environ": dict(os.environ)}}
    socket.send_fds(door, [json.dumps(call).encode()], [0, 1, 2])
    door.shutdown(socket.SHUT_WR)
    sys.exit(int(door.recv(8) or 70))
"""


@contextmanager
def command(folder: Path) -> Iterator[Path]:
    """A folder for PATH that holds `paqett`."""
    address, bin_folder = folder / "paqett.socket", folder / "bin"
    bin_folder.mkdir()
    script = bin_folder / "paqett"
    script.write_text(_CALL.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, __file__, str(address)],
        stdout=subprocess.PIPE, preexec_fn=die_with_parent(signal.SIGKILL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield bin_folder
        process.kill()


def _serve(address: str) -> None:
    from paqett import cli

    cli.parser()  # which imports what every command needs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is not waited for
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)  # noqa: T201 - what the other side waits for
        while True:
            caller, _ = door.accept()
            with caller:
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    caller.sendall(str(_answer(caller, cli.main)).encode())
                    os._exit(0)


def _answer(caller: socket.socket, main: Any) -> int:
    """Run one call in a process of its own; its exit code."""
    data, streams, _, _ = socket.recv_fds(caller, 1 << 16, 3)
    while more := caller.recv(1 << 16):
        data += more
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) % 256
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    code = 70
    try:
        code = _run(json.loads(data), main)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(call: dict[str, Any], main: Any) -> int:
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environ"])
    try:
        return int(main(call["argv"]))
    except SystemExit as end:
        return int(end.code or 0)


if __name__ == "__main__":
    _serve(sys.argv[1])
