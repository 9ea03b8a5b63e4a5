"""What the alert rules say of a real installation whose database, broker or ingest is away."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from alarms import Look, fired
from paqett import jobs
from stacks import PAQETT, Ingest, Piece, Pieces, next_port, running_pieces, until
from support import in_database

pytestmark = pytest.mark.prove
TWO_HOURS = 120


class Site:
    """Every process of an installation, once."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self._port = next_port()
        self.worker = self._new_worker()
        self.api = pieces.other("api", "api", PAQETT_HTTP__PORT=str(self._port))
        self.ingest: Ingest = pieces.ingest()
        self.sender = pieces.devices("alarms")[0]

    def _new_worker(self) -> Piece:
        return self.pieces.other("worker", "worker", PAQETT_WORKER__RETENTION_EVERY_S="2")

    def well(self, **environ: str) -> Look:
        """With a new ingest and worker, once nothing is wrong."""
        self.pieces.tidy()
        self.worker.kill()
        self.worker = self._new_worker()
        if self.pieces.broker.process.poll() is not None:
            self.pieces.broker = Piece(
                self.pieces.folder, [*PAQETT, "broker"], self.pieces._environ, dies=signal.SIGTERM
            )
        self.ingest = self.pieces.ingest(**environ)
        until(self.ingest.subscribed, "ingest has subscribed")
        until(lambda: self.dropped() == 0, "and has heard what the broker dropped")
        until(lambda: not self.ingest.in_hand(), "nothing waits")
        until(lambda: self.pieces.broker.metric("paqett_broker_database_up") == 1, "the broker's")
        until(lambda: self.asked() == 401, "the API asks the database")
        until(lambda: self.worker.metric('paqett_jobs{status="failed"}') == 0, "the worker works")
        return self.look()

    def look(self) -> Look:
        processes = {"api": self.api, "ingest": self.ingest, "worker": self.worker,
                     "broker": self.pieces.broker}  # fmt: skip
        return Look(
            {(f"paqett-{name}", name): one.ops("/metrics")[1] for name, one in processes.items()}
        )

    def dropped(self) -> float | None:
        return self.ingest.metric("paqett_ingest_broker_dropped_messages")

    def asked(self) -> int:
        headers = {"Authorization": "Bearer pqt_nobodys"}
        url = f"http://127.0.0.1:{self._port}/api/v1/devices"
        try:
            return httpx.get(url, headers=headers, timeout=60).status_code
        except httpx.HTTPError:
            return 0

    def failing(self) -> set[str]:
        """The worker's rounds that failed more than once in a row."""
        lines = self.worker.ops("/metrics")[1].splitlines()
        rounds = [line for line in lines if line.startswith("paqett_worker_round_failures_in_a")]
        return {line.split()[0] for line in rounds if float(line.split()[1]) > 1}

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """And with a device and a program that go on."""
        self.pieces.kill_database()
        stop = threading.Event()

        def ask() -> None:
            while not stop.wait(0.1):
                self.asked()

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            stop.set()
            asking.join()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_pieces() as pieces:
        yield Site(pieces)


def test_a_database_that_is_away(site: Site, tmp_path: Path) -> None:
    before = site.well()
    with site.without_database():
        site.pieces.send(site.sender, 50)
        until(lambda: site.ingest.metric("paqett_ingest_spooling") == 1, "ingest spools")
        until(lambda: site.pieces.broker.metric("paqett_broker_database_up") == 0, "the broker's")
        until(site.failing, "the worker's rounds fail")
        until(lambda: site.asked() == 503, "the API says so")
        after = site.look()
    alerts = {
        "PaqettIngestSpooling", "PaqettFlushesFail", "PaqettBrokerWithoutDatabase",
        "PaqettApiFails", "PaqettUpkeepFails",
    }  # fmt: skip
    told = fired(tmp_path, before, after, TWO_HOURS)
    assert told - {"PaqettApiSlow"} == alerts, "no larger pool would help"


def test_a_spool_that_is_full(site: Site, tmp_path: Path) -> None:
    before = site.well(PAQETT_INGEST__SPOOL_MAX_BYTES="1000")
    with site.without_database():
        site.pieces.send(site.sender, 50)
        until(lambda: site.ingest.metric("paqett_ingest_spool_full") == 1, "it is full")
        until(site.failing, "the worker's rounds fail")
        after = site.look()
    assert fired(tmp_path, before, after, 1) == {"PaqettSpoolFull"}, "at once"


def test_a_broker_that_is_away(site: Site, tmp_path: Path) -> None:
    before = site.well()
    site.pieces.broker.signal(signal.SIGTERM)
    site.pieces.broker.ended()
    until(lambda: not site.ingest.subscribed(), "ingest has noticed")
    alerts = {"PaqettIngestNotSubscribed", "PaqettProcessDown"}
    assert fired(tmp_path, before, site.look(), TWO_HOURS) == alerts


def test_an_ingest_that_is_away(site: Site, tmp_path: Path) -> None:
    before = site.well()
    site.pieces.stop_ingests()
    alerts = {"PaqettNoActiveIngest", "PaqettProcessDown"}
    assert fired(tmp_path, before, site.look(), TWO_HOURS) == alerts


def test_a_worker_that_answers_nobody(site: Site, tmp_path: Path) -> None:
    before = site.well()
    os.kill(site.worker.process.pid, signal.SIGSTOP)
    try:
        assert fired(tmp_path, before, site.look(), TWO_HOURS) == {"PaqettProcessDown"}
    finally:
        os.kill(site.worker.process.pid, signal.SIGCONT)


def test_a_job_that_failed_and_readings_that_outlive_their_retention(
    site: Site, tmp_path: Path
) -> None:
    before = site.well()
    in_database(site.pieces.url, lambda conn: jobs.defer(conn, "report_long_move", account_id=1))
    with psycopg.connect(site.pieces.url) as conn:
        conn.execute(
            "INSERT INTO telemetry_own SELECT now() - interval '400 days', account_id, 1, 1"
            " FROM device WHERE id = %s", (site.sender.id,),
        )  # fmt: skip
        conn.commit()
        conn.execute("SELECT time FROM telemetry_own LIMIT 1")  # so that it cannot be dropped
        worker = site.worker
        until(lambda: worker.metric('paqett_tier_overdue{tier="own"}') == 1, "it is overdue")
        until(lambda: worker.metric('paqett_jobs{status="failed"}') == 1, "the job failed")
        after = site.look()
        conn.rollback()
        conn.execute("DELETE FROM procrastinate_jobs WHERE status = 'failed'")
    assert fired(tmp_path, before, after, 30) == {"PaqettJobsFail"}
    alerts = {"PaqettJobsFail", "PaqettRetentionOverdue"}
    assert fired(tmp_path, before, after, TWO_HOURS) == alerts
    until(lambda: worker.metric('paqett_tier_overdue{tier="own"}') == 0, "it has been dropped")
