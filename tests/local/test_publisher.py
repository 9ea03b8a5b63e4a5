"""The publisher on a real broker: what it says is acknowledged is, whatever happens on the way."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mosquitto import DEVICE, MAX_PACKET, READER, Broker
from paqett.mqtt.in_flight import NotPublishedError


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.kill()


async def until(ready: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not ready():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


def test_publish_returns_when_the_broker_has_the_message(broker: Broker) -> None:
    async def work() -> None:
        seen: list[bytes] = []
        reader = await broker.read(seen.append)
        async with broker.publisher() as publisher:
            await publisher.publish("telemetry", b"1")
            assert publisher.connected
            assert publisher.waiting == 0
            await until(lambda: seen == [b"1"])
        assert not publisher.connected
        await reader.disconnect()

    run(work)


def test_far_more_than_the_window_arrives_in_order(broker: Broker) -> None:
    async def work() -> None:
        seen: list[bytes] = []
        reader = await broker.read(seen.append)
        async with broker.publisher() as publisher:
            futures = [publisher.enqueue("telemetry", b"%d" % n) for n in range(3000)]
            await asyncio.gather(*futures)
        await until(lambda: len(seen) == 3000)
        assert seen == [b"%d" % n for n in range(3000)]
        await reader.disconnect()

    run(work)


def test_the_brokers_receive_maximum_is_kept(broker: Broker) -> None:
    conf = broker.folder / "conf"
    conf.write_text(conf.read_text() + "max_inflight_messages 3\n")
    broker.kill()
    broker.start()

    async def work() -> None:
        async with broker.publisher() as publisher:
            await asyncio.gather(*(publisher.enqueue("telemetry", b"x") for _ in range(200)))
            assert publisher._window == 2
            assert publisher.connections == 1

    run(work)


def test_everything_is_acknowledged_though_the_broker_is_killed_again_and_again(
    broker: Broker,
) -> None:
    async def work() -> None:
        # restarted in the same breath, it looks as if it had been there all along
        async with broker.publisher(takeover_wait_s=0.2) as publisher:
            futures = []
            for _ in range(3):
                futures += [publisher.enqueue("telemetry", b"x") for _ in range(300)]
                await until(futures[-300].done)
                broker.kill()
                futures += [publisher.enqueue("telemetry", b"x") for _ in range(100)]
                broker.start()
            await asyncio.gather(*futures)
            assert publisher.connections >= 3
            assert publisher.waiting == publisher.dropped == 0

    run(work)


def test_what_is_unacknowledged_at_a_loss_is_sent_again(broker: Broker) -> None:
    """A broker that is stopped takes nothing; another in its place gets it all."""

    async def work() -> None:
        seen: list[bytes] = []
        # a broker that is back at once looks like a takeover
        async with broker.publisher(takeover_wait_s=0.5) as publisher:
            await publisher.publish("telemetry", b"first")
            assert broker.process is not None
            broker.process.send_signal(signal.SIGSTOP)
            futures = [publisher.enqueue("telemetry", b"%d" % n) for n in range(250)]
            assert len(publisher._in_flight.entries) == publisher._window
            await asyncio.sleep(0.05)
            # gone while nobody publishes, so that the reader is there first
            connect = publisher._connect
            allowed = asyncio.Event()

            async def later() -> object:
                await allowed.wait()
                return await connect()

            publisher._connect = later  # type: ignore[method-assign]
            broker.kill()
            broker.start()
            reader = await broker.read(seen.append)
            allowed.set()
            await asyncio.gather(*futures)
            await until(lambda: len(seen) >= 250)
            assert seen == [b"%d" % n for n in range(250)]
            await reader.disconnect()

    run(work)


def test_refused_credentials_are_reported_and_tried_again_slowly(broker: Broker) -> None:
    async def work() -> None:
        async with broker.publisher("later", refused_wait_s=0.5) as publisher:
            future = publisher.enqueue("telemetry", b"x")
            await until(lambda: publisher.credentials_refused)
            broker.allow(DEVICE, READER, "later")
            await future
            assert not publisher.credentials_refused

    run(work)


def test_a_broker_that_restarts_is_not_mistaken_for_a_takeover(broker: Broker) -> None:
    async def work() -> None:
        async with broker.publisher(takeover_wait_s=100.0) as publisher:
            for stop in (signal.SIGKILL, signal.SIGTERM):
                await publisher.publish("telemetry", b"x")
                assert broker.process is not None
                broker.process.send_signal(stop)
                await until(lambda: not publisher.connected)
                broker.kill()
                broker.start()
            await publisher.publish("telemetry", b"x")

    run(work)


def test_after_a_takeover_it_waits(broker: Broker) -> None:
    async def work() -> None:
        async with broker.publisher(takeover_wait_s=1.0) as first:
            await first.publish("telemetry", b"1")
            async with broker.publisher(takeover_wait_s=30.0) as second:
                await second.publish("telemetry", b"2")
                await until(lambda: not first.connected)
                since = time.monotonic()
                await until(lambda: first.connected)
                assert time.monotonic() - since > 0.8
                await until(lambda: not second.connected)
                await asyncio.sleep(0.3)
                assert first.connected
                assert second.connections == 1

    run(work)


def test_a_refused_message_is_not_acknowledged_and_blocks_nothing(broker: Broker) -> None:
    async def work() -> None:
        async with broker.publisher() as publisher:
            with pytest.raises(NotPublishedError, match="0x87"):
                await publisher.publish("forbidden", b"x")
            with pytest.raises(NotPublishedError, match="larger"):
                await publisher.publish("telemetry", b"x" * (MAX_PACKET + 1))
            await publisher.publish("telemetry", b"x")
            assert publisher.connections == 1
            assert publisher.refused == 2

    run(work)


def test_the_oldest_is_dropped_and_counted_when_too_many_wait(broker: Broker) -> None:
    broker.kill()

    async def work() -> None:
        async with broker.publisher(kept=3) as publisher:
            futures = [publisher.enqueue("telemetry", b"%d" % n) for n in range(5)]
            assert publisher.dropped == 2
            with pytest.raises(NotPublishedError, match="dropped"):
                await futures[0]
            broker.start()
            await asyncio.gather(*futures[2:])

    run(work)


def test_a_socket_that_is_closed_or_silent_before_the_answer_is_survived(broker: Broker) -> None:
    """gmqtt alone would wait for CONNACK for ever."""
    broker.kill()

    async def work() -> None:
        hung_up = 0

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal hung_up
            hung_up += 1
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", broker.port)
        async with broker.publisher() as publisher:
            future = publisher.enqueue("telemetry", b"x")
            await until(lambda: hung_up >= 2)
            server.close()
            await server.wait_closed()
            broker.start()
            await future

    run(work)
