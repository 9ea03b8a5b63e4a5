"""Paqett itself, measured in the same way as the others."""

from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg

from paqett.local.shape import Shape
from suite.rivals import forms
from suite.rivals.system import Counted, System
from suite.stand import READY_METRIC, TABLE, Stand


class Paqett(System):
    """Ingest, with the API, a worker and the broker's supervisor beside it."""

    name = "Paqett"
    table = TABLE
    promise = "acknowledged after commit or fsync: a kill loses nothing, a stamped reading is once"

    def __init__(self, made: Stand, folder: Path) -> None:
        super().__init__(made, folder)
        self.version = version("paqett")
        self._api = ""
        self._base = 0

    def prepare(self) -> None:
        """The stand runs; the other processes of an installation are started too."""
        if "api-bench" not in self.made.running:
            self.made.start_api("bench")
            self.made.start_worker()

    def launch(self) -> None:
        if "ingest" not in self.made.running:
            self.made.start_ingest()

    def start(self) -> None:
        self.launch()
        self.clear()

    def processes(self) -> list[psutil.Process]:
        found = []
        for name in self.made.running:
            with suppress(psutil.Error):
                found.append(psutil.Process(self.made.pid(name)))
        return found

    def kill(self) -> None:
        """Ingest, API and worker; the broker's supervisor takes Mosquitto with it, which is not
        killed for anybody."""
        for name in set(self.made.running) - {"broker"}:
            self.made.kill(name)

    def clear(self) -> None:
        self.made.clear()
        with self.made.connect() as conn:
            conn.execute(f"TRUNCATE {TABLE}")

    def connect(self) -> psycopg.Connection:
        return self.made.connect()

    def inserted(self, conn: psycopg.Connection) -> int:
        """Counted in the readings' own transaction."""
        row = conn.execute("SELECT coalesce(sum(messages), 0)::bigint FROM usage_hour").fetchone()
        return int(row[0]) if row else 0

    def stored(self, conn: psycopg.Connection) -> int:
        row = conn.execute(
            f"SELECT count(*) FROM {TABLE} JOIN series ON series.id = series_id WHERE metric <> %s",
            (READY_METRIC,),
        ).fetchone()
        return int(row[0]) // self.points if row else 0

    def count(self) -> Counted:
        with self.connect() as conn:
            row = conn.execute(
                "SELECT count(*), count(DISTINCT (series_id, time)) FROM telemetry_own"
                " JOIN series ON series.id = series_id WHERE metric <> %s",
                (READY_METRIC,),
            ).fetchone()
        assert row is not None
        return Counted(row[0] // self.points, (row[0] - row[1]) // self.points)


class PaqettSingle(Paqett):
    """One value a message, as collectd and the ingestor take them."""

    name = "Paqett, one value a message"
    shape = Shape(metrics=[forms.METRIC], per_item=1)
