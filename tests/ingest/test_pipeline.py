"""Ingest on a real broker and a database that is slow, away, or not there yet."""

import asyncio
import contextlib
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mosquitto import DEVICE, READER, SECRET, Broker
from paqett import migrate
from paqett.ingest import metrics, process
from paqett.ingest.spool import Spool
from paqett.local import postgres
from paqett.mqtt.publisher import Publisher
from paqett.settings import Settings
from ports import free_port
from support import in_database, with_url

BASE_US = time.time_ns() // 1000 - 60_000_000
DEADLINE_S = 30.0


async def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, f"timed out: {what}"
        await asyncio.sleep(0.02)


class Database:
    """A cluster of the test's own, so that it can be stopped."""

    def __init__(self, folder: Path) -> None:
        self.cluster = postgres.create(folder / "postgres", free_port(57000))
        self._log = folder / "postgres.log"
        self._server: subprocess.Popen[bytes] | None = None
        self.url = self.cluster.url("paqett")

    def start(self) -> None:
        self._server = postgres.start(self.cluster, self._log)
        postgres.wait_ready(self.cluster.url())

    def kill(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None

    def make(self) -> None:
        postgres.create_database(self.cluster, "paqett")
        in_database(self.url, migrate.migrate)
        with psycopg.connect(self.url) as conn:
            conn.execute("INSERT INTO account (email, plan, tier) VALUES ('a@b.c', 'own', 'own')")
            conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier)"
                " VALUES (%s, 1, 'd', 'x')",
                (DEVICE,),
            )

    def one(self, text: str) -> Any:
        with psycopg.connect(self.url) as conn:
            row = conn.execute(text).fetchone()
        return row[0] if row else None

    def stored(self) -> int:
        return int(self.one("SELECT count(*) FROM telemetry_own"))

    def empty(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            for table in ("telemetry_own", "usage_hour", "rejection_hour", "rejection"):
                conn.execute(f"TRUNCATE {table}")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="paqett-pipe-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        database = Database(folder)
        database.start()
        database.make()
        yield database
        database.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    (tmp_path / "acl").write_text(
        f"user {READER}\ntopic read #\ntopic write paqett/v1/+/errors\n"
        "pattern write paqett/v1/%u/#\npattern read paqett/v1/%u/errors\n"
    )
    broker.start()
    yield broker
    broker.kill()


class Ingest:
    """One ingest process's life, in the test's own event loop."""

    def __init__(self, database: Database, broker: Broker, folder: Path, **more: str) -> None:
        self.settings: Settings = with_url(
            database.url,
            PAQETT_PAQETT__DATA_DIR=str(folder),
            PAQETT_MQTT__HOST="127.0.0.1",
            PAQETT_MQTT__PORT=str(broker.port),
            PAQETT_MQTT__USERNAME=READER,
            PAQETT_MQTT__PASSWORD=SECRET,
            PAQETT_INGEST__PATIENCE_MS="200",
            PAQETT_INGEST__SPOOL_MIN_FREE_BYTES="0",
            **more,
        )
        self.folder = folder / "ingest" / "spool"

    @contextlib.asynccontextmanager
    async def running(self, *, orderly: bool = True) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(process.run(self.settings, stop))
        try:
            yield
            if orderly:
                stop.set()
                await asyncio.wait_for(task, DEADLINE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def segments(self) -> int:
        return len(list(self.folder.glob("*.spool")))


def reading(number: int) -> bytes:
    return json.dumps({"ts": BASE_US + number, "t": number}).encode()


async def publish(publisher: Publisher, numbers: range) -> None:
    await asyncio.gather(*(publisher.publish("telemetry", reading(n)) for n in numbers))


def subscribed() -> bool:
    return metrics.connected._value.get() == 1


def unacknowledged() -> float:
    return metrics.unacknowledged._value.get()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def _begin(database: Database, publisher: Publisher) -> None:
    """Until readings go all the way; what that took is removed again."""
    number = -1
    while not database.stored():
        await publisher.publish("telemetry", reading(number))
        number -= 1
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    database.empty()


@pytest.fixture
def ingest(database: Database, broker: Broker, tmp_path: Path) -> Ingest:
    database.empty()
    return Ingest(database, broker, tmp_path)


def test_a_database_that_hangs_is_spooled_round_and_each_reading_stored_once(
    ingest, database, broker
) -> None:
    async def work() -> None:
        async with ingest.running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            with psycopg.connect(database.url) as blocker:
                blocker.execute("SELECT pg_advisory_xact_lock(7061, 1)")
                await publish(publisher, range(300))
                await until(lambda: ingest.segments() > 0, "the spool is written")
                await publish(publisher, range(300, 600))
                await asyncio.sleep(1.2)
                assert unacknowledged() == 0
                assert database.stored() == 0
            await until(lambda: database.stored() == 600, "everything is stored")
            await until(lambda: ingest.segments() == 0, "the spool is empty")
            assert database.one("SELECT sum(messages) FROM usage_hour") == 600

    run(work)


def test_a_killed_database_costs_nothing_and_the_spool_is_replayed(
    ingest, database, broker
) -> None:
    async def work() -> None:
        async with ingest.running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            database.kill()
            await publish(publisher, range(500))
            await until(lambda: ingest.segments() > 0, "the spool is written")
            await asyncio.sleep(1.2)
            assert unacknowledged() == 0
            database.start()
            await until(lambda: ingest.segments() == 0, "the spool is empty")
            assert database.stored() == 500
            await publish(publisher, range(500, 510))
            await until(lambda: database.stored() == 510, "directly again")

    run(work)


def test_a_life_that_ends_with_a_spool_is_gone_on_with_by_the_next_even_without_a_database(
    ingest, database, broker
) -> None:
    async def work() -> None:
        async with broker.publisher() as publisher:
            async with ingest.running(orderly=False):
                await _begin(database, publisher)
                database.kill()
                await publish(publisher, range(200))
                await until(lambda: ingest.segments() > 0, "the spool is written")
                await asyncio.sleep(0.5)
            await publish(publisher, range(200, 400))  # into the broker's memory
            async with ingest.running():
                await until(subscribed, "reading without the database")
                before = sum(path.stat().st_size for path in ingest.folder.glob("*.spool"))
                await publish(publisher, range(400, 600))
                await until(
                    lambda: sum(p.stat().st_size for p in ingest.folder.glob("*.spool")) > before,
                    "the spool grows",
                )
                database.start()
                await until(lambda: database.stored() == 600, "everything is stored")
                await until(lambda: ingest.segments() == 0, "the spool is empty")

    metrics.connected.set(0)
    run(work)


def test_started_before_its_database_it_waits_and_says_so(ingest, database, broker, capsys) -> None:
    async def work() -> None:
        database.kill()
        async with ingest.running(), broker.publisher() as publisher:
            await asyncio.sleep(1)
            database.start()
            await _begin(database, publisher)

    run(work)
    assert "waiting for the database" in capsys.readouterr().out


def test_started_before_its_broker_it_waits_for_it(database, broker, ingest) -> None:
    broker.kill()

    async def work() -> None:
        async with ingest.running():
            await asyncio.sleep(0.5)
            broker.start()
            async with broker.publisher() as publisher:
                await _begin(database, publisher)

    run(work)


def test_a_full_spool_leaves_messages_unacknowledged_and_loses_none(
    database, broker, tmp_path
) -> None:
    database.empty()
    ingest = Ingest(database, broker, tmp_path, PAQETT_INGEST__SPOOL_MAX_BYTES="20000")

    async def work() -> None:
        async with ingest.running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            database.kill()
            for start in range(0, 1000, 50):
                await publish(publisher, range(start, start + 50))
            await until(lambda: metrics.spool_full._value.get() == 1, "the spool is full")
            await until(lambda: unacknowledged() > 0, "messages wait")
            assert sum(path.stat().st_size for path in ingest.folder.glob("*.spool")) <= 20_000
            database.start()
            await until(lambda: database.stored() == 1000, "everything is stored")
            await until(lambda: unacknowledged() == 0, "everything is acknowledged")

    run(work)


def test_a_disk_without_any_room_only_slows_what_the_database_takes(
    database, broker, tmp_path
) -> None:
    database.empty()
    ingest = Ingest(database, broker, tmp_path, PAQETT_INGEST__SPOOL_MAX_BYTES="1")

    async def work() -> None:
        async with ingest.running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            with psycopg.connect(database.url) as blocker:
                blocker.execute("SELECT pg_advisory_xact_lock(7061, 1)")
                await publish(publisher, range(100))
                await asyncio.sleep(1.5)
                assert unacknowledged() > 0
            await until(lambda: database.stored() == 100, "everything is stored")
            database.kill()
            await publish(publisher, range(100, 200))
            await asyncio.sleep(0.5)
            database.start()
            await until(lambda: database.stored() == 200, "everything is stored")

    run(work)


def test_a_damaged_record_costs_only_itself(ingest, database, broker) -> None:
    async def work() -> None:
        async with broker.publisher() as publisher:
            async with ingest.running(orderly=False):
                await _begin(database, publisher)
                database.kill()
                await publish(publisher, range(100))
                await until(lambda: ingest.segments() > 0, "the spool is written")
                await asyncio.sleep(0.5)
            path = next(iter(ingest.folder.glob("*.spool")))
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
            database.start()
            async with ingest.running():
                await until(lambda: ingest.segments() == 0, "the spool is empty")
            assert database.stored() == 99

    run(work)


def test_refusals_reach_the_device_once_a_minute_for_each_code(ingest, database, broker) -> None:
    async def work() -> None:
        heard: list[dict[str, Any]] = []
        async with ingest.running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            listener = await broker.read(lambda payload: heard.append(json.loads(payload)))
            for _ in range(5):
                await publisher.publish("telemetry", b"{")
                await publisher.publish("telemetry", b'{"ts": "-", "t": 1}')
                await asyncio.sleep(0.1)
            await until(lambda: len([m for m in heard if "code" in m]) >= 2, "the errors")
            await asyncio.sleep(1.5)
            told = [message for message in heard if "code" in message]
            assert sorted(message["code"] for message in told) == ["bad_json", "bad_ts"]
            assert told[0].keys() == {"code", "count", "first_ts", "last_ts"}
            await listener.disconnect()

    run(work)


def test_a_second_process_on_the_same_folder_stands_by_and_takes_over(
    ingest, database, broker
) -> None:
    async def work() -> None:
        async with broker.publisher() as publisher:
            first = ingest.running(orderly=False)
            await first.__aenter__()
            await _begin(database, publisher)
            async with ingest.running():
                await asyncio.sleep(1)
                await first.__aexit__(None, None, None)
                metrics.connected.set(0)
                began = time.monotonic()
                await until(subscribed, "the second reads")
                assert time.monotonic() - began < 5
                await publish(publisher, range(10))
                await until(lambda: database.stored() == 10, "the second stores")

    run(work)


def test_one_that_stands_by_stays_so_when_the_database_goes(database, broker, tmp_path) -> None:
    """A mark of an earlier life must not make it read beside the one that is active."""
    database.empty()
    ingest = Ingest(database, broker, tmp_path)
    marker = ingest.folder.parent / "active"
    marker.parent.mkdir(parents=True)
    marker.touch()

    async def work() -> None:
        async with ingest.running():
            await until(lambda: not marker.exists(), "it has learnt that another is active")
            database.kill()
            await asyncio.sleep(5)
            assert not subscribed()
            database.start()

    metrics.connected.set(0)
    other = psycopg.connect(database.url)
    other.execute("SELECT pg_advisory_lock(7061, 2)")
    try:
        run(work)
    finally:
        other.close()


def test_where_subscriptions_are_shared_any_number_of_processes_store(
    database, broker, tmp_path
) -> None:
    database.empty()
    lives = [
        Ingest(database, broker, tmp_path / name, PAQETT_MQTT__SHARE_GROUP="writers")
        for name in ("one", "two")
    ]

    async def work() -> None:
        async with lives[0].running(), lives[1].running(), broker.publisher() as publisher:
            await _begin(database, publisher)
            await publish(publisher, range(400))
            await until(lambda: database.stored() == 400, "both store")
            with psycopg.connect(database.url) as conn:
                writers = conn.execute(
                    "SELECT count(DISTINCT pid) FROM pg_stat_activity"
                    " WHERE application_name = 'paqett ingest'"
                ).fetchone()
            assert writers == (2,)

    run(work)


def test_the_spool_of_a_process_that_only_stands_by_is_stored_all_the_same(
    ingest, database
) -> None:
    from paqett.ingest.spool_segment import Record

    spool = Spool(ingest.folder, max_bytes=10**9, min_free_bytes=0)

    async def fill() -> None:
        topic = f"paqett/v1/{DEVICE}/telemetry"
        await spool.append([Record(topic, reading(n), BASE_US + n) for n in range(10)])

    asyncio.run(fill())
    spool.close()

    async def work() -> None:
        async with ingest.running():
            await until(lambda: database.stored() == 10, "what was left is stored")

    with psycopg.connect(database.url) as other:
        other.execute("SELECT pg_advisory_lock(7061, 2)")
        run(work)
