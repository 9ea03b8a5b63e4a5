"""`install.sh` calls this: secrets that stand in paqett.env go to the processes that need them.

Every unit reads paqett.env, so what stands there is in each process's environment.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from paqett.needs import SECRETS


def hand_out(etc: Path) -> list[str]:
    """The names of the settings that moved, each into `<process>.env` of those that need it.

    A file that has the setting already keeps its own. What is nobody's, or of a process that has
    no file here, stays where it is. Raises `OSError`.
    """
    shared = etc / "paqett.env"
    lines = shared.read_text().splitlines(keepends=True)
    users = {name: processes for name, processes in _users().items()
             if processes and all((etc / f"{one}.env").exists() for one in processes)}  # fmt: skip
    moving = {name: line for line in lines if (name := line.partition("=")[0]) in users}
    for process in sorted({one for name in moving for one in users[name]}):
        wanted = {name: line for name, line in moving.items() if process in users[name]}
        _add(etc / f"{process}.env", wanted)
    if moving:
        _write(shared, "".join(line for line in lines if line.partition("=")[0] not in moving))
    return sorted(moving)


def _users() -> Mapping[str, frozenset[str]]:
    """By the name each has in the environment, itself or as a file's path."""
    names = {f"PAQETT_{name.replace('.', '__').upper()}": users for name, users in SECRETS.items()}
    return names | {f"{name}_FILE": users for name, users in names.items()}


def _add(file: Path, wanted: Mapping[str, str]) -> None:
    text = file.read_text()
    there = {line.partition("=")[0] for line in text.splitlines()}
    more = [f"{line.rstrip()}\n" for name, line in wanted.items() if name not in there]
    if more:
        end = "" if not text or text.endswith("\n") else "\n"
        _write(file, text + end + "".join(more))


def _write(file: Path, text: str) -> None:
    """Whole or not at all, root's alone as `install.sh` makes it."""
    draft = file.with_name(f"{file.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


if __name__ == "__main__":
    for moved in hand_out(Path(sys.argv[1])):
        sys.stderr.write(f"install: moved out of paqett.env: {moved}\n")
