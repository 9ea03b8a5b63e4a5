"""Mosquitto killed while a fleet publishes as fast as half of what this machine can store.

Mosquitto acknowledges from memory. What it has acknowledged need not be lost all the same, as long
as ingest keeps up: then it lies in ingest's socket already.
"""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from paqett.local import flooding
from paqett.local.fleet import SimDevice
from paqett.local.flood import Job
from paqett.local.packets import Refused, open_connection
from paqett.local.shape import Shape
from stacks import Ingest, Pieces, running_pieces, until

DEVICES = 200
SHAPE = Shape()
MOST_S = 20.0  # of load, for each round
LOOK_S = 1.0  # several flushes
QUIET_S = 5.0
Record = Callable[[str, object], None]


@pytest.fixture
def pieces() -> Iterator[Pieces]:
    with running_pieces() as pieces:
        yield pieces


class Stored:
    """What is committed of one fleet; messages that came again are counted again."""

    def __init__(self, url: str, devices: list[SimDevice]) -> None:
        self._conn = psycopg.connect(url, autocommit=True)
        self._ids = [device.id for device in devices]
        self._seen, self._grew = 0, time.monotonic()

    def look(self) -> int:
        now = self._one(
            "SELECT coalesce(sum(messages), 0)::int FROM usage_hour WHERE device_id = ANY(%s)"
        )
        if now > self._seen:
            self._seen, self._grew = now, time.monotonic()
        return now

    @property
    def still_s(self) -> float:
        return time.monotonic() - self._grew

    def keep_up(self, ingest: Ingest, child: subprocess.Popen[bytes]) -> None:
        """Return once no more is stored than is sent: what the last kill held up is behind us."""

        def settled() -> bool:
            if not ingest.subscribed():
                return False
            sent, stored = flooding.acknowledged(child), self.look()
            time.sleep(LOOK_S)
            sent, stored = flooding.acknowledged(child) - sent, self.look() - stored
            return 0 < stored < 1.3 * sent  # what waited comes at twice the rate

        until(settled, "ingest has caught up")

    def points(self) -> int:
        """Points, each identity once."""
        return self._one(
            "SELECT count(*) FROM telemetry_own WHERE series_id IN"
            " (SELECT id FROM series WHERE device_id = ANY(%s))"
        )

    def _one(self, statement: str) -> int:
        row = self._conn.execute(statement, (self._ids,)).fetchone()  # type: ignore[call-overload]
        return int(row[0])

    def close(self) -> None:
        self._conn.close()


class Flood:
    """A fleet of its own devices, each reading of which has a time of its own."""

    def __init__(self, pieces: Pieces, name: str, messages: int, **how: Any) -> None:
        devices = pieces.devices(name, DEVICES)
        self.each = messages // DEVICES
        self.total = self.each * DEVICES
        self.stored = Stored(pieces.url, devices)
        self.job = Job(
            [(device.id, device.secret) for device in devices],
            pieces.mqtt_port, self.each, SHAPE, **how,
        )  # fmt: skip
        until(lambda: _admitted(pieces, devices[-1]), "the broker knows the devices")

    def missing(self, acknowledged: int) -> int:
        """Points of that many messages that are not stored once nothing comes any more."""
        expected = acknowledged * SHAPE.points
        until(
            lambda: (
                self.stored.points() == expected
                or (self.stored.look() and self.stored.still_s > QUIET_S)
            ),
            "everything has arrived",
        )
        missing = expected - self.stored.points()
        self.stored.close()
        return missing


def _admitted(pieces: Pieces, device: SimDevice) -> bool:
    with suppress(OSError, Refused):
        open_connection(pieces.mqtt_port, device.id, device.secret).close()
        return True
    return False


def begin(pieces: Pieces) -> Ingest:
    ingest = pieces.ingest()
    until(ingest.subscribed, "ingest has subscribed")
    return ingest


def highest_rate(pieces: Pieces, messages: int) -> float:
    """Messages a second, from the first publish to the commit of the last."""
    flood = Flood(pieces, "highest", messages)
    with flooding.flooding(flood.job) as child:
        done = flooding.follow(child, flood.stored, flood.total)
        seconds = time.monotonic() - done["first_ns"] / 1e9
    assert flood.missing(flood.total) == 0
    return flood.total / seconds


def lasting(pieces: Pieces, name: str, rate: float, rounds: int) -> Flood:
    """A flood of `rate` that outlasts that many kills."""
    return Flood(pieces, name, round(rate * MOST_S * rounds), rate=rate, enduring=True)


def kill_at_speed(
    flood: Flood, ingest: Ingest, rounds: int, kill: Callable[[Ingest], Ingest]
) -> tuple[int, dict[str, Any]]:
    """Kill at random moments of a load; the points missing, and the fleet's account.

    `kill` gets the ingest process that runs and returns the one that runs afterwards.
    """
    with flooding.flooding(flood.job) as child:
        flooding.start(child, flood.total)
        for _ in range(rounds):
            flood.stored.keep_up(ingest, child)
            time.sleep(random.uniform(0.0, 1.0))
            assert child.poll() is None
            ingest = kill(ingest)
        flood.stored.keep_up(ingest, child)
        account = flooding.end(child)
    assert account["again"] > 0  # else it was not killed under load
    return flood.missing(account["messages"]), account


def broker_killer(pieces: Pieces) -> Callable[[Ingest], Ingest]:
    def kill(ingest: Ingest) -> Ingest:
        pieces.kill_broker()
        return ingest

    return kill


@pytest.mark.parametrize(
    # more rounds of one broker take long: it is started again later each time
    ("messages", "rounds", "most"),
    [(60_000, 2, 4_000.0), pytest.param(300_000, 6, 1e9, marks=pytest.mark.prove)],
)
def test_a_killed_broker_loses_nothing_at_half_the_highest_rate(
    pieces: Pieces, record_property: Record, messages: int, rounds: int, most: float
) -> None:
    """The bounded form at 4,000 messages a second, which any machine has time for."""
    ingest = begin(pieces)
    rate = min(highest_rate(pieces, messages) / 2, most)

    flood = lasting(pieces, "half", rate, rounds)
    missing, account = kill_at_speed(flood, ingest, rounds, broker_killer(pieces))
    record_property("messages_per_second", round(rate))
    record_property("sent_again", account["again"])
    assert missing == 0


@pytest.mark.prove
def test_what_is_lost_beyond_that_is_told(pieces: Pieces, record_property: Record) -> None:
    """At the highest rate, and where ingest is killed with the broker: figures, no promise."""
    ingest = begin(pieces)
    rate = highest_rate(pieces, 300_000)

    def kill_both(ingest: Ingest) -> Ingest:
        pieces.kill_broker()
        ingest.kill()
        return begin(pieces)

    for name, chosen, kill in (
        ("full", rate, broker_killer(pieces)),
        ("both", rate / 2, kill_both),
    ):
        missing, account = kill_at_speed(lasting(pieces, name, chosen, 4), ingest, 4, kill)
        told = {
            "messages_per_second": round(chosen),
            "acknowledged_points": account["messages"] * SHAPE.points,
            "missing_points": missing,
        }
        for key, value in told.items():
            record_property(f"{name}_{key}", value)
