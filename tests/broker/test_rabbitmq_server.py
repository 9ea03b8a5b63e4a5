"""A real RabbitMQ 4 beside our API and `paqett broker`: who gets in, who is cut off, what is told.

It has to be installed, so these are run by `make prove` alone.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import gmqtt
import psycopg
import pytest

from listening import PORT, process
from paqett.broker import management, rabbitmq
from paqett.local.packets import connect_packet
from paqett.mqtt import clearing
from paqett.mqtt.closing import close_client
from paqett.mqtt.consumer import Consumer, Message
from paqett.mqtt.credentials import verifier, writer_client_id
from paqett.mqtt.publisher import Publisher
from paqett.settings import Settings
from ports import free_port
from rabbit import Rabbit, program
from support import Tenant

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(
        program() is None, reason="no RabbitMQ 4 on PATH or in PAQETT_TEST_RABBITMQ"
    ),
]
DEADLINE_S = 30.0
TOLD_S = 10.0  # a connection can be closed by its name once the server has listed it


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    with TemporaryDirectory(prefix="paqett-rabbit-", dir="/var/tmp") as folder:
        server = Rabbit(Path(folder), free_port(PORT + 200))
        try:
            server.start("postgresql://nobody@127.0.0.1/none")
            yield server
        finally:
            server.close()


@pytest.fixture
def settings(rabbit: Rabbit, database_url: str, tmp_path: Path) -> Settings:
    port = rabbit.environ["PAQETT_BROKER__AUTH_URL"].rpartition(":")[2]
    return rabbit.settings(
        database_url, PAQETT_PAQETT__DATA_DIR=str(tmp_path), PAQETT_HTTP__PORT=port
    )


async def until(ready: Any, what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, f"timed out: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def tidy() -> AsyncIterator[None]:
    """No connection of a device's is left open."""
    try:
        yield
    finally:
        while Device.made:
            await close_client(Device.made.pop())


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[rabbitmq.Server]:
    """Our API, which the broker asks, and what looks after the broker."""
    stop = asyncio.Event()
    kept: list[rabbitmq.Server] = []
    original = rabbitmq.Server

    def keep(*arguments: Any) -> rabbitmq.Server:
        kept.append(original(*arguments))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rabbitmq, "Server", keep)
        async with process(settings), tidy():
            task = asyncio.create_task(rabbitmq.run(settings, stop))
            try:
                await until(lambda: (kept and kept[0].watched) or task.done(), "it is watched")
                assert not task.done(), task.result()
                yield kept[0]
            finally:
                stop.set()
                await asyncio.wait_for(task, DEADLINE_S)


def set_secret(url: str, device_id: str, secret: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE device SET verifier = %s WHERE id = %s", (verifier(secret), device_id))


@pytest.fixture
def device_id(database_url: str, owner: Tenant) -> str:
    """A device whose secret is `s`."""
    set_secret(database_url, owner.devices[0], "s")
    return owner.devices[0]


def state(url: str, device_id: str) -> str:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT connection FROM device WHERE id = %s", (device_id,)).fetchone()
    assert row is not None
    return str(row[0])


def events(url: str, device_id: str) -> list[tuple[str, str | None, str | None]]:
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT kind, reason, host(ip) FROM device_event WHERE device_id = %s ORDER BY id",
            (device_id,),
        ).fetchall()


class Device:
    """A device's connection of its own making; `lost` is set when it has ended."""

    made: ClassVar[list[gmqtt.Client]] = []

    def __init__(self, client_id: str, version: int = 5) -> None:
        self.client = gmqtt.Client(client_id)
        self.version = version
        self.made.append(self.client)
        self.client.set_config({"reconnect_retries": 0})
        self.lost = asyncio.Event()
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.got: list[str] = []
        self.client.on_message = lambda _c, topic, *_: self.got.append(topic)

    async def sign_in(self, port: int, device_id: str, secret: str) -> "Device":
        self.client.set_auth_credentials(device_id, secret)
        async with asyncio.timeout(DEADLINE_S):
            await self.client.connect("127.0.0.1", port, version=self.version)
        return self

    async def subscribe(self, topic: str) -> tuple[int, ...]:
        answered: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        def note(_c: Any, _mid: int, codes: tuple[int, ...], _p: Any) -> None:
            answered.set_result(codes)

        self.client.on_subscribe = note
        self.client.subscribe(topic, qos=1)
        async with asyncio.timeout(DEADLINE_S):
            return await answered


def test_a_device_connects_and_is_cut_off_when_its_secret_changes(
    rabbit: Rabbit, settings: Settings, database_url: str, device_id: str
) -> None:
    async def work() -> None:
        async with running(settings):
            device = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            await until(lambda: state(database_url, device_id) == "online", "online")
            set_secret(database_url, device_id, "new")
            await asyncio.wait_for(device.lost.wait(), 1)
            await until(lambda: state(database_url, device_id) == "offline", "offline")
            with pytest.raises(gmqtt.mqtt.handler.MQTTConnectError):
                await Device(device_id).sign_in(rabbit.port, device_id, "s")
            await until(lambda: len(events(database_url, device_id)) == 3, "three events")

    asyncio.run(work())
    assert events(database_url, device_id) == [
        ("connected", None, "127.0.0.1"),
        ("disconnected", "cut off by the platform", None),
        ("refused", "unknown id, wrong secret, or a client id that is not the device's",
         "127.0.0.1"),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["disabled", "paused", "deleted"])
def test_who_may_not_connect_any_more_is_cut_off(
    rabbit: Rabbit, settings: Settings, database_url: str, owner: Tenant, device_id: str, how: str
) -> None:
    change = {
        "disabled": "UPDATE account SET disabled_at = now() WHERE id = %(account)s",
        "paused": "UPDATE device SET paused_at = now() WHERE id = %(device)s",
        "deleted": "DELETE FROM device WHERE id = %(device)s",
    }[how]

    async def work() -> None:
        async with running(settings):
            device = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            with psycopg.connect(database_url) as conn:
                conn.execute(change, {"account": owner.account_id, "device": device_id})
            await asyncio.wait_for(device.lost.wait(), 1)
            with pytest.raises(gmqtt.mqtt.handler.MQTTConnectError):
                await Device(device_id).sign_in(rabbit.port, device_id, "s")

    asyncio.run(work())


def test_a_second_connection_takes_over_whatever_its_client_id(
    rabbit: Rabbit, settings: Settings, database_url: str, device_id: str
) -> None:
    async def work() -> None:
        async with running(settings):
            first = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            await until(lambda: len(events(database_url, device_id)) == 1, "connected")
            second = await Device(uuid.uuid4().hex).sign_in(rabbit.port, device_id, "s")
            await asyncio.wait_for(first.lost.wait(), TOLD_S)
            third = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            await asyncio.wait_for(second.lost.wait(), TOLD_S)
            fourth = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            await asyncio.wait_for(third.lost.wait(), 2)
            await until(lambda: len(events(database_url, device_id)) == 7, "all is noted")
            assert state(database_url, device_id) == "online"
            assert not fourth.lost.is_set()
            await fourth.client.disconnect()
            await until(lambda: state(database_url, device_id) == "offline", "it has left")

    asyncio.run(work())
    kinds = [kind for kind, _, _ in events(database_url, device_id)]
    assert kinds == ["connected", *3 * ["taken_over", "connected"], "disconnected"]


def test_a_device_without_a_client_id_is_let_in(
    rabbit: Rabbit, settings: Settings, device_id: str
) -> None:
    """As `mosquitto_pub` does it; the broker then makes one up."""

    async def work() -> None:
        async with process(settings):
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", rabbit.port)
                writer.write(connect_packet("", "s", device_id))
                assert await asyncio.wait_for(reader.readexactly(4), 5) == b"\x20\x02\x00\x00"
                writer.close()
                await writer.wait_closed()

    asyncio.run(work())


def test_a_device_reaches_nothing_but_its_own(
    rabbit: Rabbit, settings: Settings, database_url: str, owner: Tenant, attacker: Tenant
) -> None:
    victim, thief = owner.devices[0], attacker.devices[0]
    set_secret(database_url, victim, "v")
    set_secret(database_url, thief, "t")
    got: list[str] = []

    async def work() -> None:
        consumer = Consumer(
            settings.mqtt, writer_client_id(settings.mqtt.password), ["paqett/v1/+/#"],
            lambda message: (got.append(message.topic), consumer.acknowledge((message,)))[0],
        )  # fmt: skip
        reading = asyncio.create_task(consumer.run())
        async with running(settings):
            await until(lambda: consumer.connected, "subscribed")
            for foreign in ("livingroom", victim, writer_client_id(settings.mqtt.password)):
                with pytest.raises(gmqtt.mqtt.handler.MQTTConnectError):
                    await Device(foreign).sign_in(rabbit.port, thief, "t")
            mine = await Device(victim).sign_in(rabbit.port, victim, "v")
            assert (await mine.subscribe(f"paqett/v1/{victim}/errors"))[0] <= 2
            for topic in (
                f"paqett/v1/{victim}/errors", f"paqett/v1/{victim}/telemetry", "paqett/v1/+/errors",
                "#", f"paqett/v1/{thief}/#", "connection/#", f"$share/g/paqett/v1/{victim}/errors",
            ):  # fmt: skip
                device = await Device(thief).sign_in(rabbit.port, thief, "t")
                try:
                    codes = await asyncio.wait_for(device.subscribe(topic), 2)
                except TimeoutError:
                    assert device.lost.is_set(), topic
                else:
                    assert all(code >= 0x80 for code in codes), topic
            async with Publisher("127.0.0.1", rabbit.port, thief, "t", refused_wait_s=0.1) as own:
                await own.publish("telemetry", b"1")
            device = await Device(thief).sign_in(rabbit.port, thief, "t")
            device.client.publish(f"paqett/v1/{victim}/telemetry", b"9", qos=1)
            await asyncio.wait_for(device.lost.wait(), 2)
            device = await Device(thief).sign_in(rabbit.port, thief, "t")
            device.client.publish(f"paqett/v1/{victim}/errors", b"9", qos=1)
            await asyncio.wait_for(device.lost.wait(), 2)
            older = await Device(thief, version=4).sign_in(rabbit.port, thief, "t")
            older.client.publish(f"paqett/v1/{victim}/telemetry", b"9", qos=1)
            await asyncio.wait_for(older.lost.wait(), 2)
            consumer.publish(f"paqett/v1/{victim}/errors", b"{}")
            await until(lambda: mine.got, "its errors reach a device")
            await until(lambda: got, "its own readings arrive")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await clearing.forget_sessions(settings.mqtt, [writer_client_id(settings.mqtt.password)])
        assert mine.got == [f"paqett/v1/{victim}/errors"]
        assert set(got) == {f"paqett/v1/{thief}/telemetry"}

    asyncio.run(work())


def test_what_happened_while_nobody_looked_is_put_right(
    rabbit: Rabbit, settings: Settings, database_url: str, owner: Tenant
) -> None:
    stays, leaves = owner.devices
    for device_id in owner.devices:
        set_secret(database_url, device_id, "s")

    async def work() -> None:
        async with process(settings), tidy():
            async with running_only(settings):
                left = await Device(leaves).sign_in(rabbit.port, leaves, "s")
                await until(lambda: state(database_url, leaves) == "online", "online")
            await left.client.disconnect()
            stayed = await Device(stays).sign_in(rabbit.port, stays, "s")
            async with running_only(settings):
                await until(lambda: state(database_url, leaves) == "offline", "it has left")
                await until(lambda: state(database_url, stays) == "online", "it has come")
            set_secret(database_url, stays, "another")
            async with running_only(settings):
                await asyncio.wait_for(stayed.lost.wait(), 2)

    asyncio.run(work())


@asynccontextmanager
async def running_only(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(rabbitmq.run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


def test_nothing_retained_is_kept_and_sessions_are_forgotten(
    rabbit: Rabbit, settings: Settings, database_url: str, owner: Tenant
) -> None:
    device_id = owner.devices[0]
    set_secret(database_url, device_id, "s")
    got: list[Message] = []

    async def work() -> None:
        consumer = Consumer(settings.mqtt, "reader", ["paqett/v1/+/#"], got.append)
        reading = asyncio.create_task(consumer.run())
        async with running(settings), management.Management(settings) as api:
            await until(lambda: consumer.connected, "subscribed")
            device = await Device(device_id).sign_in(rabbit.port, device_id, "s")
            device.client.publish(f"paqett/v1/{device_id}/telemetry", b"1", qos=1, retain=True)
            await until(lambda: got, "a retained reading is still a reading")
            await device.client.disconnect()
            assert await clearing.clear_retained(settings.mqtt, [device_id]) == 0
            lasting = gmqtt.Client(device_id, clean_session=False, session_expiry_interval=1000)
            Device.made.append(lasting)
            lasting.set_auth_credentials(device_id, "s")
            await lasting.connect("127.0.0.1", rabbit.port)
            lasting.subscribe(f"paqett/v1/{device_id}/errors", qos=1)
            await asyncio.sleep(0.3)
            await lasting.disconnect()
            assert await sessions(api) == {"reader", device_id}
            await clearing.forget_sessions(settings.mqtt, [device_id])
            assert await sessions(api) == {"reader"}
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await clearing.forget_sessions(settings.mqtt, ["reader"])

    asyncio.run(work())


async def sessions(api: management.Management) -> set[str]:
    queues = (await api._ask("GET", "/api/queues")).json()
    names = [queue["name"] for queue in queues if queue["type"] == "quorum"]
    return {name.removeprefix("mqtt-subscription-").removesuffix("qos1") for name in names}
