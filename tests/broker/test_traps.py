"""What gmqtt and Mosquitto do to the unwary, and that the consumer does not fall for it."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gmqtt
import pytest

from mosquitto import READER, SECRET, Broker
from paqett.mqtt.consumer import Consumer, Message
from paqett.settings import Mqtt, load

DEADLINE_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


def settings(broker: Broker, password: str = SECRET) -> Mqtt:
    return load(
        {
            "PAQETT_MQTT__HOST": "127.0.0.1",
            "PAQETT_MQTT__PORT": str(broker.port),
            "PAQETT_MQTT__USERNAME": READER,
            "PAQETT_MQTT__PASSWORD": password,
        }
    ).mqtt


async def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def answering(broker: Broker) -> None:
    """Until the broker takes connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


class Reading:
    """A consumer that acknowledges what it gets."""

    def __init__(self, mqtt: Mqtt) -> None:
        self.got: list[bytes] = []
        self.consumer = Consumer(mqtt, "writer", ["paqett/v1/+/#"], self._take)

    def _take(self, message: Message) -> None:
        self.got.append(message.payload)
        self.consumer.acknowledge((message,))

    async def __aenter__(self) -> "Reading":
        self._task = asyncio.create_task(self.consumer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def test_it_subscribes_again_after_the_broker_was_killed(broker: Broker) -> None:
    """gmqtt's own reconnect does not; Mosquitto without persistence has forgotten us."""

    async def work() -> None:
        async with Reading(settings(broker)) as reading:
            await until(lambda: reading.consumer.connected)
            broker.kill()
            broker.start()
            await until(lambda: reading.consumer.connections == 2 and reading.consumer.connected)
            await asyncio.sleep(0.3)
            async with broker.publisher() as publisher:
                await publisher.publish("telemetry", b"after")
            await until(lambda: reading.got == [b"after"])

    asyncio.run(work())


def test_it_tries_again_after_refused_credentials(broker: Broker) -> None:
    """gmqtt gives up for good; a broker that has not read its passwords yet refuses everybody."""

    async def work() -> None:
        passwords = broker.folder / "passwords"
        known = passwords.read_text()
        passwords.write_text("")
        assert broker.process is not None
        await asyncio.sleep(0.3)  # it runs: before that SIGHUP would end it
        broker.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.2)
        async with Reading(settings(broker)) as reading:
            await asyncio.sleep(0.5)
            assert not reading.consumer.connected
            passwords.write_text(known)
            broker.process.send_signal(signal.SIGHUP)
            await until(lambda: reading.consumer.connected)

    asyncio.run(work())


def test_gmqtts_own_window_leaks_where_a_handler_raises_and_ours_has_no_handler_to_raise(
    broker: Broker,
) -> None:
    async def naive() -> int:
        client = gmqtt.Client("naive", receive_maximum=5, optimistic_acknowledgement=False)
        client.set_auth_credentials(READER, SECRET)
        seen = 0

        async def fail(*_: object) -> int:
            nonlocal seen
            seen += 1
            raise ValueError("a payload that does not parse")

        client.on_message = fail
        await answering(broker)
        await client.connect("127.0.0.1", broker.port)
        client.subscribe("paqett/v1/+/#", qos=1)
        await asyncio.sleep(0.3)
        unacknowledged = await _publish_and_wait(client)
        await client.disconnect()
        assert seen > 0
        return unacknowledged

    async def _publish_and_wait(client: gmqtt.Client) -> int:
        written: list[bytes] = []
        original = client._package_handler._send_puback

        def count(mid: int, reason_code: int = 0) -> None:
            written.append(b"ack")
            original(mid, reason_code)

        client._package_handler._send_puback = count
        async with broker.publisher() as publisher:
            for number in range(5):
                await publisher.publish("telemetry", b"%d" % number)
        await asyncio.sleep(0.5)
        return 5 - len(written)

    async def ours() -> None:
        async with Reading(settings(broker)) as reading:
            await until(lambda: reading.consumer.connected)
            await asyncio.sleep(0.2)
            async with broker.publisher() as publisher:
                for number in range(50):
                    await publisher.publish("telemetry", b"{%d" % number)
            await until(lambda: len(reading.got) == 50)
            assert reading.consumer.unacknowledged == 0

    assert asyncio.run(naive()) == 5
    asyncio.run(ours())
