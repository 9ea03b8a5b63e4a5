"""The database stops for long under load: nothing lost, nobody refused, memory bounded."""

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from paqett.local import simulate
from paqett.local.fleet import SimDevice
from paqett.local.simulate import Ledger
from stacks import Pieces, Stored, running_pieces, until

MEMORY_BYTES = 300 * 2**20
DRAINED_S = 120.0


@pytest.fixture(scope="module")
def pieces() -> Iterator[Pieces]:
    with running_pieces() as pieces:
        yield pieces


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server and its children that neither answer nor end."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)


class Fleet:
    """Devices that send from a thread of their own until told to stop."""

    def __init__(self, pieces: Pieces, devices: list[SimDevice], rate: float, ledger: Path) -> None:
        self._pieces, self._devices, self._rate = pieces, devices, rate
        self._ledger = ledger
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self.told = Ledger()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.told = self._loop.run_until_complete(
            simulate.run(
                self._devices, "127.0.0.1", self._pieces.mqtt_port, self._rate, self._stop,
                ledger_file=str(self._ledger),
            )
        )  # fmt: skip
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def promised(self) -> Stored:
        """Each acknowledged (device, time) once."""
        lines = map(json.loads, self._ledger.read_text().splitlines())
        return Counter({(device, at): 3 for device, at, _ in lines})


def _outage(
    pieces: Pieces, note: Callable[[str, object], None], *,
    seconds: float, devices: int, rate: float,
) -> None:  # fmt: skip
    ingest = pieces.ingest("outage")
    until(ingest.subscribed, "ingest has subscribed")
    fleet = pieces.devices(f"outage-{devices}", devices)
    passwords = pieces.folder / "broker" / "passwords"
    until(lambda: fleet[-1].id in passwords.read_text(), "the broker knows the fleet")
    time.sleep(1)  # and has read of it
    ledger = pieces.folder / f"outage-{devices}.jsonl"
    ledger.touch()
    sending = Fleet(pieces, fleet, rate, ledger)
    server = pieces._server
    assert server is not None
    process = psutil.Process(ingest.process.pid)
    highest = 0
    try:
        until(lambda: ledger.stat().st_size > 0, "the fleet sends")
        with frozen(server.pid):
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                time.sleep(0.5)
                highest = max(highest, process.memory_info().rss)
            assert ingest.metric("paqett_ingest_spooling") == 1
            spooled = ingest.metric("paqett_ingest_spool_bytes")
    finally:
        sending.stop()
    back = time.monotonic()
    until(lambda: not ingest.in_hand(), "the spool is drained", DRAINED_S)
    drained_s = time.monotonic() - back
    highest = max(highest, process.memory_info().rss)
    promised = sending.promised()
    until(lambda: promised <= pieces.stored(*fleet), "everything is stored")
    found = pieces.stored(*fleet)
    assert {key: found[key] for key in promised} == dict(promised)
    assert sending.told.acknowledged == sending.told.published
    assert highest < MEMORY_BYTES
    note("messages acknowledged", sending.told.acknowledged)
    note("readings stored once", len(promised))
    note("bytes spooled", spooled)
    note("seconds to drain", round(drained_s, 1))
    note("memory, MB", round(highest / 2**20))
    ingest.signal(signal.SIGTERM)
    assert ingest.ended() == 0


def test_a_database_that_stops_under_load_costs_no_reading_and_refuses_no_device(
    pieces, record_property
) -> None:
    _outage(pieces, record_property, seconds=8, devices=50, rate=8)


@pytest.mark.prove
def test_five_minutes_at_two_thousand_messages_a_second(pieces, record_property) -> None:
    _outage(pieces, record_property, seconds=300, devices=200, rate=10)
