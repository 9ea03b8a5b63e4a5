"""Ingest and its database killed at the worst moments: each acknowledged reading is stored once."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gmqtt
import psycopg
import pytest

from paqett.local.fleet import SimDevice
from stacks import Ingest, Pieces, Stored, running_pieces, until

DYING = [sys.executable, str(Path(__file__).with_name("dying_ingest.py"))]
HOLDS = {
    "before COPY": "SELECT pg_advisory_xact_lock(7061, 1)",
    "during COPY": "LOCK TABLE telemetry_own IN SHARE MODE",
}
TAKEOVER_S = 5.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Pieces]:
    with running_pieces() as pieces:
        yield pieces


@pytest.fixture
def pieces(shared: Pieces) -> Iterator[Pieces]:
    yield shared
    shared.tidy()


@contextmanager
def held(url: str, statement: str) -> Iterator[None]:
    """Hold what `statement` locks; the server may be killed meanwhile."""
    conn = psycopg.connect(url)
    try:
        conn.execute(statement)  # type: ignore[call-overload]
        yield
    finally:
        conn.close()


def begin(pieces: Pieces, name: str, argv: list[str] | None = None, **environ: str) -> Ingest:
    ingest = pieces.ingest(name, argv, **environ)
    until(ingest.subscribed, "ingest has subscribed")
    return ingest


def first_reading(pieces: Pieces, name: str) -> tuple[SimDevice, Stored]:
    """A device whose first reading is stored, so that its series is known."""
    device = pieces.devices(name)[0]
    promised = pieces.send(device, 1)
    until_stored(pieces, device, promised)
    return device, promised


def until_stored(
    pieces: Pieces, device: SimDevice, promised: Stored, timeout_s: float = 60
) -> None:
    """Wait until all that was promised is there; then it is there once, and nothing else is."""
    until(lambda: promised <= pieces.stored(device), "all is stored", timeout_s)
    assert pieces.stored(device) == promised


def duplicates(pieces: Pieces, device: SimDevice) -> int:
    with psycopg.connect(pieces.url) as conn:
        row = conn.execute(
            "SELECT coalesce(sum(duplicates), 0) FROM usage_hour WHERE device_id = %s", (device.id,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def killed_while_held(pieces: Pieces, hold: str, victim: str, name: str) -> None:
    ingest = begin(pieces, "a")
    device, promised = first_reading(pieces, name)
    with held(pieces.url, HOLDS[hold]):
        promised += pieces.send(device, 200)
        until(pieces.waiting_flush, "a flush waits")
        if victim == "ingest":
            ingest.kill()
        else:
            os.kill(pieces.backends()[0], signal.SIGKILL)
    if victim == "ingest":
        begin(pieces, "a")
    until_stored(pieces, device, promised)
    pieces.stop_ingests()


@pytest.mark.parametrize("victim", ["ingest", "backend"])
@pytest.mark.parametrize("hold", HOLDS)
def test_a_kill_of_a_flush_loses_nothing(pieces: Pieces, hold: str, victim: str) -> None:
    killed_while_held(pieces, hold, victim, f"held {hold} {victim}")


@pytest.mark.prove
def test_many_kills_of_flushes_lose_nothing(pieces: Pieces) -> None:
    for number in range(10):
        for hold in HOLDS:
            for victim in ("ingest", "backend"):
                killed_while_held(pieces, hold, victim, f"often {hold} {victim} {number}")


def dies_between_commit_and_acknowledgement(pieces: Pieces, dies_at: int, name: str) -> None:
    ingest = begin(pieces, "a", DYING, PAQETT_TEST_DIES_AT=str(dies_at))
    device = pieces.devices(name)[0]
    promised: Stored = Stored()
    while ingest.process.poll() is None:
        promised += pieces.send(device, 20)
    assert ingest.ended() == -signal.SIGKILL
    assert pieces.stored(device), "it died after a commit"
    begin(pieces, "a")
    until_stored(pieces, device, promised)
    assert duplicates(pieces, device) > 0, "the broker sent again what was not acknowledged"
    pieces.stop_ingests()


@pytest.mark.parametrize("dies_at", [1, 4])
def test_a_death_between_commit_and_acknowledgement_doubles_nothing(
    pieces: Pieces, dies_at: int
) -> None:
    dies_between_commit_and_acknowledgement(pieces, dies_at, f"dies at {dies_at}")


@pytest.mark.prove
def test_many_deaths_between_commit_and_acknowledgement_double_nothing(pieces: Pieces) -> None:
    for dies_at in range(1, 21):
        dies_between_commit_and_acknowledgement(pieces, dies_at, f"often dies at {dies_at}")


def killed_while_the_database_is_away(pieces: Pieces, name: str) -> None:
    ingest = begin(pieces, "a")
    device, promised = first_reading(pieces, name)
    pieces.kill_database()
    promised += pieces.send(device, 300)
    until(ingest.in_hand, "messages wait for the database")
    promised += pieces.send(device, 300)
    ingest.kill()
    pieces.ingest("a")
    promised += pieces.send(device, 50)
    pieces.start_database()
    until_stored(pieces, device, promised)
    pieces.stop_ingests()


def killed_while_catching_up(pieces: Pieces, name: str, messages: int = 3000) -> None:
    ingest = begin(pieces, "a")
    device, promised = first_reading(pieces, name)
    pieces.kill_database()
    promised += pieces.send(device, messages)
    until(ingest.in_hand, "messages wait for the database")
    pieces.start_database()
    until(lambda: len(pieces.stored(device)) > 1, "the first of what waited is stored")
    ingest.kill()
    begin(pieces, "a")
    until_stored(pieces, device, promised)
    pieces.stop_ingests()


def test_ingest_killed_while_the_database_is_away_loses_nothing(pieces: Pieces) -> None:
    killed_while_the_database_is_away(pieces, "away")


def test_ingest_killed_while_it_catches_up_loses_nothing(pieces: Pieces) -> None:
    killed_while_catching_up(pieces, "catching up")


@pytest.mark.prove
def test_many_kills_around_an_outage_lose_nothing(pieces: Pieces) -> None:
    for number in range(8):
        killed_while_the_database_is_away(pieces, f"often away {number}")
        killed_while_catching_up(pieces, f"often catching up {number}", 20_000)


@pytest.mark.parametrize("folder", ["a", "b"], ids=["same machine", "another machine"])
def test_a_second_process_takes_over_within_five_seconds(pieces: Pieces, folder: str) -> None:
    first = begin(pieces, "a")
    device, promised = first_reading(pieces, f"takeover {folder}")
    second = pieces.ingest(folder)
    until(lambda: second.metric("paqett_ingest_broker_connected") == 0, "the second stands by")
    promised += pieces.send(device, 100)
    first.kill()
    after = pieces.send(device, 100)
    until(lambda: after <= pieces.stored(device), "it has taken over", TAKEOVER_S)
    pieces.ingest("a")  # what the first had spooled, if anything, is on its disk
    until_stored(pieces, device, promised + after)


def test_a_clean_stop_drains_and_hands_over(pieces: Pieces) -> None:
    first = begin(pieces, "a")
    device, promised = first_reading(pieces, "drain")
    second = pieces.ingest("b")
    until(lambda: second.metric("paqett_ingest_broker_connected") == 0, "the second stands by")
    second.signal(signal.SIGSTOP)
    with held(pieces.url, HOLDS["before COPY"]):
        promised += pieces.send(device, 100)
        until(pieces.waiting_flush, "a flush waits")
        first.signal(signal.SIGTERM)
    assert first.ended() == 0
    spooled = any(path.stat().st_size for path in (pieces.folder / "a").rglob("*.spool"))
    assert spooled or len(pieces.stored(device)) > 1, "what was in hand is safe"
    second.signal(signal.SIGCONT)
    after = pieces.send(device, 100)
    until(lambda: after <= pieces.stored(device), "the second has taken over", TAKEOVER_S)
    if spooled:  # on the first one's disk, so the first one's to store
        second.signal(signal.SIGTERM)
        assert second.ended() == 0
        begin(pieces, "a")
    until_stored(pieces, device, promised + after)


async def retain(pieces: Pieces, device: SimDevice, topics: int) -> None:
    """Publish once to each of `topics` topics, retained."""
    client = gmqtt.Client(device.id)
    client.set_auth_credentials(device.id, device.secret)
    await client.connect("127.0.0.1", pieces.mqtt_port)
    for number in range(topics):
        client.publish(f"paqett/v1/{device.id}/telemetry/t{number}", b"1", qos=0, retain=True)
    await client.disconnect()


def restarts_over_retained_topics(pieces: Pieces, name: str, topics: int, restarts: int) -> None:
    ingest = begin(pieces, "a")
    device = pieces.devices(name)[0]
    total = sum(pieces.send(device, 1).values())  # the broker knows the device
    asyncio.run(retain(pieces, device, topics))
    total += topics
    until(lambda: sum(pieces.stored(device).values()) == total, "each is stored once, when sent")
    for _ in range(restarts):
        ingest.kill()
        ingest = begin(pieces, "a")
        probe = pieces.send(device, 1)  # behind whatever the broker had to say on subscribing
        total += 1
        until(lambda probe=probe: probe <= pieces.stored(device), "the probe is stored")
        assert sum(pieces.stored(device).values()) == total
    pieces.stop_ingests()


def test_a_restart_over_retained_topics_adds_no_reading(pieces: Pieces) -> None:
    restarts_over_retained_topics(pieces, "retained", topics=200, restarts=3)


@pytest.mark.prove
def test_ten_restarts_over_a_thousand_retained_topics_add_no_reading(pieces: Pieces) -> None:
    restarts_over_retained_topics(pieces, "much retained", topics=1000, restarts=10)
