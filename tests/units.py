"""config/systemd as tests read it: units, settings, and the users and folders that it makes."""

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from paqett.settings import Settings, load
from stacks import private_folder

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "config/systemd"
PROCESSES = ("api", "broker", "ingest", "worker")


def directives(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def install(etc: Path) -> str:
    done = subprocess.run(
        ["bash", "src/paqett/local/install.sh", "--settings", str(etc)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr


def environ(*files: Path) -> dict[str, str]:
    """As systemd reads them."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class User(msgspec.Struct, frozen=True):
    uid: int
    gid: int
    groups: list[int]


class Machine(msgspec.Struct, frozen=True):
    """The users and folders as systemd makes them, in a tree of their own."""

    root: Path
    users: dict[str, User]

    @property
    def data(self) -> Path:
        return self.root / "var/lib/paqett"

    @property
    def settings(self) -> Settings:
        return load({"PAQETT_PAQETT__DATA_DIR": str(self.data)})

    def as_user(self, name: str, action: Callable[[], object]) -> str:
        """What it returned, or the name of what it raised, tried as `name`."""
        return acted(self.users[name], action)


def acted(user: User, action: Callable[[], object]) -> str:
    """The same for a user of no unit; with the units' umask."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs on in one thread
        child = os.fork()
    if not child:
        try:
            os.umask(0o077)
            os.setgroups(user.groups)
            os.setgid(user.gid)
            os.setuid(user.uid)
            said = str(action())
        except BaseException as error:
            said = type(error).__name__
        os.write(writer, said.encode()[:4096])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


@contextmanager
def made_machine() -> Iterator[Machine]:
    with private_folder() as root:
        (root / "etc").mkdir()
        for program, name in (("sysusers", "sysusers"), ("tmpfiles --create", "tmpfiles")):
            argv = [*f"systemd-{program}".split(), f"--root={root}", f"{UNITS / name}.conf"]
            subprocess.run(argv, check=True, capture_output=True)
        made = Machine(root, users_of(root))
        for process in PROCESSES:  # as systemd does for a unit that starts
            owner = made.users[f"paqett-{process}"]
            for folder in state_directories(process):
                (root / "var/lib" / folder).mkdir(mode=0o700)
                os.chown(root / "var/lib" / folder, owner.uid, owner.gid)
        yield made


def users_of(root: Path) -> dict[str, User]:
    def entries(name: str) -> list[list[str]]:
        return [line.split(":") for line in (root / "etc" / name).read_text().splitlines()]

    groups = entries("group")
    return {
        name: User(int(uid), int(gid), [int(gid)] + [
            int(number) for _, _, number, members in groups if name in members.split(",")
        ])
        for name, _, uid, gid, *_ in entries("passwd")
    }  # fmt: skip


def state_directories(process: str) -> list[str]:
    unit = directives(f"paqett-{process}.service")
    return [folder for line in unit.get("StateDirectory", []) for folder in line.split()]
