"""What can be said of any system that takes messages from the broker into the database."""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from paqett.children import die_with_parent
from paqett.local.packets import open_connection, publish_packet
from paqett.local.shape import Packets, Shape
from suite.rivals import forms
from suite.stand import BenchmarkError, Stand

DATABASE = "rivals"
_INSERTED = """
SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_all_tables WHERE relid = %(table)s::regclass
   OR relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass)"""


@dataclass(frozen=True)
class Counted:
    """Messages stored, and how many of them are the same as another."""

    stored: int
    doubled: int


class System:
    """One of those that are compared; the class says what it takes and how it stores it."""

    name = ""
    form = forms.PAQETT
    shape = Shape()
    table = ""
    identity = ""  # columns that tell one message from another
    promise = ""  # when the broker's message is acknowledged, and what that is worth
    trial = 1_000  # messages that tell how long a run may be
    holds_back = False  # whether it keeps the last messages until it is told to `finish`
    needs = ""  # what had to be done so that it stores anything

    def __init__(self, made: Stand, folder: Path) -> None:
        self.made, self.folder = made, folder
        self.children: list[subprocess.Popen[bytes]] = []
        self.version = ""

    @property
    def points(self) -> int:
        """Points in a message."""
        return self.shape.points

    def prepare(self) -> None:
        """Install it, make its tables, write its configuration."""

    def launch(self) -> None:
        """Start its processes."""
        raise NotImplementedError

    def finish(self) -> None:
        """Whatever makes it store what it holds back; nothing for most."""

    def spawn(self, *command: str, environ: dict[str, str] | None = None) -> None:
        """Start one process, logging into the stand's folder."""
        log = self.made.folder / f"rival-{self.folder.name}.log"
        with log.open("ab") as out:
            self.children.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=out, start_new_session=True, preexec_fn=die_with_parent(signal.SIGKILL),
                )
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """All of its own, the children's children too."""
        found = []
        for child in self.children:
            with suppress(psutil.Error):
                process = psutil.Process(child.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def kill(self) -> None:
        """SIGKILL to all of them at one moment: stopped first, so that none sees another's end and
        stores what it still has."""
        found: dict[int, psutil.Process] = {}
        while fresh := [one for one in self.processes() if one.pid not in found]:
            for process in fresh:
                found[process.pid] = process
                with suppress(psutil.Error):
                    process.suspend()
        for process in found.values():
            with suppress(psutil.Error):
                process.kill()
        for child in self.children:
            child.wait()
        self.children = []

    def end_all(self, name: str = "") -> None:
        """SIGTERM to those of that name, or to all that were started, and wait for the end."""
        for process in self.processes():
            with suppress(psutil.Error):
                if not name or process.name() == name:
                    process.terminate()
        for child in self.children:
            child.wait(60)
        self.children = []

    def start(self) -> None:
        """Launch, and wait until a message has gone all the way; the table is empty then."""
        self.launch()
        self.wait_until_it_takes()
        self.clear()

    def wait_until_it_takes(self) -> None:
        """Send one now and then, since nobody keeps it before the first subscription."""
        before, number = self.count().stored, 0
        deadline = time.monotonic() + 60
        while self.count().stored == before:
            if time.monotonic() > deadline or any(child.poll() for child in self.children):
                raise BenchmarkError(f"{self.name} stores nothing\n{self.made.log_tail()}")
            self._send_one(number)
            number += 1
            time.sleep(0.5)

    def _send_one(self, number: int) -> None:
        device = self.made.devices[0]
        if self.form == forms.PAQETT:
            start_us = time.time_ns() // 1000
            packet = bytes(Packets(device.id, self.shape, 1, start_us, 1).data)
        else:
            topic, body = forms.FORMS[self.form](device.id, number, time.time_ns() // 1000)
            packet = publish_packet(topic, body, 1, 1)
        with open_connection(self.made.ports["plain"], device.id, device.secret) as conn:
            conn.sendall(packet)
            conn.recv(4)
            conn.sendall(b"\xe0\x00")

    def connect(self) -> psycopg.Connection:
        """To its database."""
        return psycopg.connect(self.made.url_of(DATABASE), autocommit=True)

    def execute(self, statement: str) -> Sequence[tuple[object, ...]]:
        """On a connection of its own."""
        with self.connect() as conn:
            found = conn.execute(statement)
            return found.fetchall() if found.description else []

    def clear(self) -> None:
        """Forget what is stored."""
        self.execute(f"TRUNCATE {self.table}")

    def inserted(self, conn: psycopg.Connection) -> int:
        """Messages stored since the table was made, as the server's statistics have it: cheap,
        and up to a second old."""
        row = conn.execute(_INSERTED, {"table": self.table}).fetchone()
        return int(row[0]) if row else 0

    def count(self) -> Counted:
        """Messages in the table."""
        [(stored, distinct)] = self.execute(
            f"SELECT count(*), count(DISTINCT ({self.identity})) FROM {self.table}"
        )
        assert isinstance(stored, int)
        assert isinstance(distinct, int)
        return Counted(stored, stored - distinct)

    def stored(self, conn: psycopg.Connection) -> int:
        """Messages in the table, counted."""
        row = conn.execute(f"SELECT count(*) FROM {self.table}").fetchone()
        return int(row[0]) if row else 0
