"""`paqett broker` on a real Mosquitto and a real database: who is online, and through what."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gmqtt
import msgspec
import psycopg
import pytest

import papers
from listening import PORT
from paqett import db, pauses
from paqett.broker import files, following, mosquitto, record
from paqett.broker.record import Event
from paqett.children import give, service_user
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.mqtt.consumer import Consumer, Message
from paqett.mqtt.credentials import verifier, writer_client_id
from paqett.mqtt.publisher import Publisher
from paqett.settings import Settings
from ports import free_port
from support import Tenant, in_database, with_url

DEADLINE_S = 60.0
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_what_the_log_said_before_a_restart_leaves_nobody_online() -> None:
    seen = Event("connected", "a", ip="::1")
    ended, last = record.states([(at(0), seen), (at(1), None), (at(2), Event("connected", "b"))])
    assert ended == at(1)
    assert list(last) == ["b"]


def test_compacting_keeps_what_decides_who_is_online() -> None:
    pending: record.Pending = [
        (at(0), Event("connected", "a")),
        (at(1), None),
        (at(2), Event("connected", "a")),
        (at(3), Event("refused", "b")),
        (at(4), Event("disconnected", "a", "connection lost")),
        (at(5), Event("connected", "c")),
    ]
    compacted = record.compacted(pending)
    assert record.states(compacted) == record.states(pending)
    assert len(compacted) == 3


@pytest.fixture
def broker_settings(database_url: str) -> Any:
    port = free_port(19500)
    with TemporaryDirectory(prefix="paqett-br-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield with_url(
            database_url,
            PAQETT_MQTT__PASSWORD="writer",
            PAQETT_PAQETT__DATA_DIR=folder,
            PAQETT_MQTT__PORT=str(port),
            PAQETT_BROKER__LISTEN_PORT=str(free_port(port + 1)),
        )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[mosquitto._Broker]:
    kept: list[mosquitto._Broker] = []
    original = mosquitto._Broker

    def keep(chosen: Settings) -> mosquitto._Broker:
        kept.append(original(chosen))
        return kept[-1]

    stop = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosquitto, "_Broker", keep)
        task = asyncio.create_task(mosquitto.run(settings, stop))
        await until(lambda: bool(kept) and kept[0]._serving)
        try:
            yield kept[0]
        finally:
            stop.set()
            await asyncio.wait_for(task, DEADLINE_S)


@asynccontextmanager
async def reading(settings: Settings, got: list[bytes]) -> AsyncIterator[Consumer]:
    """The platform's consumer while it is subscribed."""

    def take(message: Message) -> None:
        got.append(message.payload)
        consumer.acknowledge((message,))

    client_id = writer_client_id(settings.mqtt.password)
    consumer = Consumer(settings.mqtt, client_id, ["paqett/v1/+/#"], take)
    task = asyncio.create_task(consumer.run())
    try:
        await until(lambda: consumer.connected)
        yield consumer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def state(url: str, device_id: str) -> tuple[str, str | None]:
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT connection, connection_reason FROM device WHERE id = %s", (device_id,)
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def set_secret(url: str, device_id: str, secret: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE device SET verifier = %s WHERE id = %s", (verifier(secret), device_id))


async def sign_in(settings: Settings, device_id: str) -> gmqtt.Client:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            client = gmqtt.Client("any")
            client.set_config({"reconnect_retries": 0})
            client.set_auth_credentials(device_id, "s")
            try:
                await client.connect("127.0.0.1", settings.broker.listen_port)
            except (OSError, gmqtt.mqtt.handler.MQTTConnectError):
                await asyncio.sleep(0.1)
            else:
                return client


def test_a_device_is_online_until_its_secret_changes(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    device_id = owner.devices[0]
    set_secret(database_url, device_id, "s")

    async def work() -> None:
        async with running(broker_settings):
            client = await sign_in(broker_settings, device_id)
            lost = asyncio.Event()
            client.on_disconnect = lambda *_: lost.set()
            await until(lambda: state(database_url, device_id)[0] == "online")
            set_secret(database_url, device_id, "another")
            await asyncio.wait_for(lost.wait(), 1)
            await until(lambda: state(database_url, device_id)[0] == "offline")

    asyncio.run(work())


def test_a_paused_device_is_cut_off_and_let_in_again(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    device_id, other = owner.devices
    set_secret(database_url, device_id, "s")
    set_secret(database_url, other, "s")

    def fit(most: int | None) -> None:
        async def change(conn: Connection) -> None:
            async with conn.transaction():
                await pauses.fit(conn, owner.account_id, most, datetime.now(UTC))

        in_database(database_url, change)

    async def work() -> None:
        async with running(broker_settings):
            newest = max(owner.devices)  # made in one transaction: then the id decides
            client = await sign_in(broker_settings, newest)
            lost = asyncio.Event()
            client.on_disconnect = lambda *_: lost.set()
            await until(lambda: state(database_url, newest)[0] == "online")
            await asyncio.to_thread(fit, 1)
            await asyncio.wait_for(lost.wait(), 1)
            await (await sign_in(broker_settings, min(owner.devices))).disconnect()
            await asyncio.to_thread(fit, None)
            await (await sign_in(broker_settings, newest)).disconnect()

    asyncio.run(work())


def test_a_killed_broker_comes_back_and_a_stopped_one_leaves_nobody_online(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    device_id = owner.devices[0]
    set_secret(database_url, device_id, "s")

    async def work() -> None:
        async with running(broker_settings) as broker:
            await sign_in(broker_settings, device_id)
            await until(lambda: state(database_url, device_id)[0] == "online")
            assert broker._child is not None
            environ = Path(f"/proc/{broker._child.pid}/environ")
            given = await asyncio.to_thread(environ.read_bytes)
            assert b"PATH=" in given
            assert b"PAQETT_" not in given, "it speaks with strangers, and needs no secret of ours"
            broker._child.send_signal(signal.SIGKILL)
            await until(lambda: state(database_url, device_id)[0] == "offline")
            await sign_in(broker_settings, device_id)
            await until(lambda: state(database_url, device_id)[0] == "online")
        assert state(database_url, device_id) == ("offline", "the broker restarted")

    asyncio.run(work())


def test_a_password_change_while_the_broker_starts_does_not_end_it(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    """Mosquitto dies of a SIGHUP that comes before it runs; a long file takes it a while."""

    async def work() -> None:
        broker = mosquitto._Broker(broker_settings)
        lines = ((f"x{number}", verifier("s")) for number in range(50_000))
        broker._folder.mkdir(parents=True)
        (broker._folder / "passwords").write_text(files.password_file(lines, ""))
        broker.write_configuration()
        async with await db.connect(broker_settings.database, "test", autocommit=True) as conn:
            broker._expect_writer()
            broker._child = await broker._start()
            await following.sync(conn, broker)
            await broker.settle(conn)
            reading = asyncio.create_task(broker._read_log(broker._child))
            await until(lambda: broker._serving or broker._child.returncode is not None)
            assert broker._child.returncode is None
            assert broker._reload_due, "what changed meanwhile must be sent now"
            await broker.settle(conn)
            assert not broker._reload_due
            await asyncio.sleep(0.3)
            assert broker._child.returncode is None
            await broker.stop()
            await reading

    asyncio.run(work())


def test_what_devices_send_between_a_killed_broker_and_the_writers_return_waits_for_it(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    first, second = owner.devices
    got: list[bytes] = []
    set_secret(database_url, first, "s")

    async def work() -> None:
        async with running(broker_settings) as broker:
            await sign_in(broker_settings, first)
            async with reading(broker_settings, got):
                await asyncio.sleep(1.0)  # its session is saved
            assert broker._child is not None
            old = broker._child
            old.kill()
            await until(lambda: broker._child is not old and broker._serving)
            set_secret(database_url, second, "new")  # its reload must not cost the session
            publisher = Publisher(
                "127.0.0.1", broker_settings.broker.listen_port, first, "s",
                takeover_wait_s=0.3, refused_wait_s=0.3,
            )  # fmt: skip
            async with publisher:
                await asyncio.gather(
                    *(publisher.publish("telemetry", b"%d" % number) for number in range(100))
                )
                await until(lambda: not broker._reload_due)
            async with reading(broker_settings, got):
                await until(lambda: len(set(got)) == 100)

    asyncio.run(work())


def test_a_renewed_certificate_is_shown_to_whoever_connects_next_and_cuts_nobody_off(
    broker_settings: Settings, database_url: str, owner: Tenant
) -> None:
    device_id = owner.devices[0]
    set_secret(database_url, device_id, "s")
    folder, port = Path(broker_settings.paqett.data_dir), free_port(PORT + 150)

    def renew() -> str:
        pair = papers.write(folder, "localhost")
        for path in pair:
            give(path, service_user("mosquitto"))
        return pair[0].read_text()

    first = renew()
    over = {
        "tls_port": port, "tls_cert_file": str(folder / "localhost.crt"),
        "tls_key_file": str(folder / "localhost.key"),
    }  # fmt: skip
    chosen = msgspec.structs.replace(
        broker_settings, broker=msgspec.structs.replace(broker_settings.broker, **over)
    )

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    async def until_shown(wanted: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while await asyncio.to_thread(shown) != wanted:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    async def work() -> None:
        trusted = ssl.create_default_context(cafile=str(folder / "localhost.crt"))
        async with running(chosen):
            await (await sign_in(chosen, device_id)).disconnect()  # the broker knows it by now
            assert await asyncio.to_thread(shown) == first
            client, lost = gmqtt.Client("any"), asyncio.Event()
            client.set_auth_credentials(device_id, "s")
            client.on_disconnect = lambda *_: lost.set()
            await client.connect("localhost", port, ssl=trusted)
            await until_shown(renew())  # because its files changed
            second = renew()
            os.kill(os.getpid(), signal.SIGHUP)
            await until_shown(second)
            assert client.is_connected
            assert not lost.is_set()
            await client.disconnect()

    asyncio.run(work())


def test_without_a_mosquitto_it_refuses_to_start(broker_settings: Settings) -> None:
    lacking = msgspec.structs.replace(
        broker_settings,
        broker=msgspec.structs.replace(broker_settings.broker, binary="no-such-broker"),
    )
    with pytest.raises(ConfigurationError, match=r"broker\.binary"):
        asyncio.run(mosquitto.run(lacking, asyncio.Event()))


def seen_at(url: str) -> datetime | None:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT seen_at FROM broker_record").fetchone()
    return row[0] if row else None


def test_the_record_says_until_when_it_is_true(
    broker_settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert following._SEEN_EVERY_S <= 10
    monkeypatch.setattr(following, "_SEEN_EVERY_S", 0.3)

    async def work() -> None:
        began = datetime.now(UTC)
        assert seen_at(database_url) is None
        async with running(broker_settings):
            await until(lambda: (seen_at(database_url) or T0) >= began)
            first = seen_at(database_url)
            assert first is not None
            await until(lambda: (seen_at(database_url) or T0) > first)

    asyncio.run(work())
