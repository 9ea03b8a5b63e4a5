"""The reader of PUBLISH packets, and what is in hand over every loss of the connection."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from mosquitto import READER, SECRET, Broker
from paqett.mqtt import consumer as consumer_module
from paqett.mqtt.consumer import Consumer, Message
from paqett.settings import Mqtt, load

DEADLINE_S = 60.0
LONGEST_TOPIC = 1000
BODY = 5000  # bytes; asyncio reads up to 256 KiB at once
ONE_READ = 2**18 // BODY + 1


def mqtt(port: int = 1, receive_maximum: int = 10_000) -> Mqtt:
    return msgspec.structs.replace(
        load({}).mqtt,
        host="127.0.0.1",
        port=port,
        username=READER,
        password=SECRET,
        receive_maximum=receive_maximum,
    )


async def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, f"timed out: {what}"
        await asyncio.sleep(0.01)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


# --- packets, with the socket played ---


class Transport:
    """What the reader does to its socket."""

    def __init__(self, events: list[tuple[Any, ...]]) -> None:
        self._events = events
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        self._events.append(("write", data))


class Connection:
    """What gmqtt's connection is to the reader; packets that are no PUBLISH are put here."""

    def __init__(self, events: list[tuple[Any, ...]] | None = None) -> None:
        self.events: list[tuple[Any, ...]] = [] if events is None else events
        self._transport = Transport(self.events)

    def put_package(self, package: Any) -> None:
        self.events.append(("other", package.cmd, bytes(package.data)))

    def is_closing(self) -> bool:
        return False


class Reading:
    """A consumer fed by hand; `events` is everything it does, in order."""

    def __init__(self, receive_maximum: int = 10_000) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.held: list[Message] = []
        self.connection = Connection(self.events)
        self.consumer = Consumer(mqtt(1, receive_maximum), "test", ["#"], self._take)

    def _take(self, message: Message) -> None:
        self.held.append(message)
        self.events.append(("message", message.topic, message.payload, message.packet_id))

    def feed(self, stream: bytes, sizes: list[int]) -> bytes:
        """Hand over the stream in pieces of these sizes, over and over; what was not taken."""
        left, at, turn = b"", 0, 0
        while at < len(stream):
            size = sizes[turn % len(sizes)]
            left += stream[at : at + size]
            left = left[self.consumer._read(self.connection, left) :]
            at, turn = at + size, turn + 1
        return left


def variable(number: int) -> bytes:
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def publish(
    topic: bytes, payload: bytes = b"", *, packet_id: int | None = None,
    dup: bool = False, retain: bool = False, properties: bytes = b"",
) -> bytes:  # fmt: skip
    body = struct.pack("!H", len(topic)) + topic
    if packet_id is not None:
        body += struct.pack("!H", packet_id)
    body += variable(len(properties)) + properties + payload
    kind = 0x30 | dup << 3 | (packet_id is not None) << 1 | retain
    return bytes([kind]) + variable(len(body)) + body


def packet(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + variable(len(body)) + body


def reference(stream: bytes) -> list[tuple[Any, ...]]:
    """The same stream read one field after the other."""
    source, events = BytesIO(stream), []
    while head := source.read(1):
        body = BytesIO(source.read(_integer(source)))
        if head[0] >> 4 != 3:
            events.append(("other", head[0], body.read()))
            continue
        topic = body.read(*struct.unpack("!H", body.read(2))).decode()
        packet_id = struct.unpack("!H", body.read(2))[0] if head[0] >> 1 & 3 else None
        body.read(_integer(body))
        payload = body.read()
        if head[0] & 1 or topic.startswith("$SYS/"):
            if packet_id is not None:
                events.append(("write", struct.pack("!BBH", 0x40, 2, packet_id)))
        else:
            events.append(("message", topic[:LONGEST_TOPIC], payload, packet_id))
    return events


def _integer(source: BytesIO) -> int:
    value = factor = 0
    while True:
        (digit,) = source.read(1)
        value += (digit & 127) << 7 * factor
        factor += 1
        if digit < 128:
            return value


topics = st.one_of(
    st.sampled_from(
        [b"paqett/v1/d/telemetry", b"$SYS/broker/publish/messages/dropped", b"", b"t" * 3000]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=70).map(str.encode),
)
# around the lengths that are written in one byte, in two and in three
blobs = st.one_of(
    st.binary(max_size=40),
    st.integers(100, 140).map(lambda size: b"\xff" * size),
    st.integers(16_370, 16_400).map(lambda size: b"\x30" * size),
)
publishes = st.builds(
    publish,
    topics,
    blobs,
    packet_id=st.one_of(st.none(), st.integers(1, 65_535)),
    dup=st.booleans(),
    retain=st.booleans(),
    properties=blobs,
)
others = st.builds(
    packet, st.sampled_from([0x20, 0x40, 0x50, 0x62, 0x90, 0xB0, 0xD0, 0xE0, 0xF0]), blobs
)


@given(
    st.lists(st.one_of(publishes, others), max_size=8).map(b"".join),
    st.lists(st.one_of(st.integers(1, 9), st.integers(1, 20_000)), min_size=1, max_size=6),
)
def test_packets_in_pieces_of_any_size_are_read_as_if_they_were_whole(stream, sizes) -> None:
    if len(stream) > 1000:  # or thousands of looks at the same long packet
        sizes = [size * 50 for size in sizes]
    reading = Reading()
    assert reading.feed(stream, sizes) == b""
    assert reading.events == reference(stream)
    assert reading.consumer.unacknowledged == len(reading.held)
    wanted = [m.packet_id for m in reading.held if m.packet_id is not None]
    reading.events.clear()
    reading.consumer.acknowledge(reading.held)
    pubacks = b"".join(struct.pack("!BBH", 0x40, 2, number) for number in wanted)
    assert b"".join(data for _, data in reading.events) == pubacks
    assert (reading.consumer.unacknowledged, reading.consumer._bytes) == (0, 0)


STREAM = b"".join(
    [
        publish(b"a/b", b"one", packet_id=1),
        packet(0xD0, b""),
        publish(b"a/b", b"0" * 130),
        publish(b"a", b"\x30\x05", packet_id=0x3030, dup=True, properties=b"p" * 140),
        packet(0x90, b"\x00\x01\x00\x01"),
        publish(b"kept", b"retained", packet_id=513, retain=True),
        publish(b"", b"", packet_id=65_535),
    ]
)


def test_each_size_of_piece_gives_the_same() -> None:
    for size in range(1, len(STREAM) + 1):
        reading = Reading()
        assert reading.feed(STREAM, [size]) == b""
        assert reading.events == reference(STREAM), size


def test_what_is_not_whole_is_left_alone() -> None:
    whole = publish(b"a/b", b"x" * 20_000, packet_id=7)
    for cut in (0, 1, 2, 3, 4, 5, 100, len(whole) - 1):
        reading = Reading()
        assert reading.consumer._read(reading.connection, STREAM + whole[:cut]) == len(STREAM)
        assert reading.events == reference(STREAM)


@pytest.mark.parametrize("kind", [0x30, 0x32, 0xD0, 0x90])
@pytest.mark.parametrize("before", [b"", STREAM])
def test_a_length_of_five_bytes_ends_the_connection(kind, before) -> None:
    for whole in (b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x00"):
        reading = Reading()
        with pytest.raises(ConnectionResetError):
            reading.consumer._read(reading.connection, before + bytes([kind]) + whole)
    for part in (b"", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"\xff\xff\xff\x7f"):
        reading = Reading()
        assert reading.consumer._read(reading.connection, before + bytes([kind]) + part) == len(
            before
        )


def test_the_brokers_own_count_of_what_it_dropped_is_noted_and_rubbish_is_not() -> None:
    reading = Reading()
    dropped = b"$SYS/broker/publish/messages/dropped"
    for payload in (b"12", b"", b"-1", b"1.5", "٣".encode(), b"9" * 5000, b"\xff"):
        data = publish(dropped, payload)
        assert reading.feed(data, [len(data)]) == b""
    assert reading.consumer.broker_dropped == 12
    assert (reading.held, reading.consumer.unacknowledged) == ([], 0)


def test_long_topics_without_payloads_are_counted_and_cut(monkeypatch) -> None:
    monkeypatch.setattr(consumer_module, "_MOST_BYTES", 2**20)
    reading = Reading()
    data = publish(b"t" * 65_000, packet_id=1)
    sent = 0
    while reading.connection._transport.reading:
        reading.feed(data, [len(data)])
        sent += 1
        assert sent < 2**20 // LONGEST_TOPIC + 1, "they are not counted"
    assert sum(len(message.topic) for message in reading.held) <= 2**20
    reading.consumer.acknowledge(reading.held)
    assert reading.connection._transport.reading


def test_what_came_on_a_lost_connection_is_still_in_hand_on_the_next() -> None:
    reading = Reading(receive_maximum=50)
    reading.feed(b"".join(publish(b"a", b"x", packet_id=n) for n in range(1, 91)), [4096])
    assert reading.connection._transport.reading
    first, reading.connection = reading.held[:], Connection()
    reading.feed(publish(b"a", b"x", packet_id=1), [4096])
    assert reading.consumer.unacknowledged == 91
    reading.feed(b"".join(publish(b"a", b"x", packet_id=n) for n in range(2, 11)), [4096])
    assert not reading.connection._transport.reading  # 100 in hand
    reading.consumer.acknowledge(first[:50])
    assert not reading.connection._transport.reading
    reading.consumer.acknowledge(first[50:])
    assert reading.connection._transport.reading
    assert reading.connection.events == []  # their numbers mean other messages here
    assert reading.consumer.stale_acknowledgements == 90
    reading.consumer.acknowledge(reading.held[90:])
    assert (reading.consumer.unacknowledged, reading.consumer._bytes) == (0, 0)


def test_a_connection_that_comes_while_too_much_is_in_hand_is_not_read() -> None:
    reading = Reading(receive_maximum=50)
    reading.feed(b"".join(publish(b"a", b"x", packet_id=n) for n in range(1, 101)), [4096])
    later = Connection()
    reading.consumer._adopt(later)
    assert not later._transport.reading


# --- a broker that refuses, played ---


class Refusing:
    """Takes every connection, and answers each SUBSCRIBE with `code`, or never where it is None."""

    def __init__(self, code: int | None, first: bytes = b"", *, leaves: bool = False) -> None:
        self.code, self.first, self.leaves = code, first, leaves
        self.opened = self.closed = self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                if data[0] == 0x10:
                    writer.write(packet(0x20, b"\0\0\0") + self.first)
                elif data[0] == 0x82:
                    self.asked += 1
                    if self.leaves:
                        break
                    if self.code is not None:
                        writer.write(packet(0x90, data[2:4] + bytes([0, self.code])))
        self.closed += 1
        writer.close()


@contextlib.asynccontextmanager
async def consuming(consumer: Consumer) -> AsyncIterator[None]:
    task = asyncio.create_task(consumer.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("code", [0x80, 0x87, 0x9E])
def test_a_refused_subscription_ends_the_connection_and_is_tried_again(code) -> None:
    async def work() -> None:
        broker = Refusing(code)
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            consumer = Consumer(mqtt(port), "test", ["a"], lambda _: None)
            async with consuming(consumer):
                await until(lambda: broker.closed == 1, "the connection is closed")
                assert not consumer.connected
                await until(lambda: broker.closed == 3, "it is tried again, and each time closed")
                assert not consumer.connected

    run(work)


def test_before_the_subscription_stands_it_is_not_connected_and_nothing_is_thought_sent() -> None:
    async def work() -> None:
        held: list[Message] = []
        broker = Refusing(None, publish(b"paqett/v1/d/telemetry", b"kept for us", packet_id=1))
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            consumer = Consumer(mqtt(port), "test", ["a"], held.append)
            async with consuming(consumer):
                await until(lambda: broker.asked == 1 and len(held) == 1, "the backlog comes")
                assert not consumer.connected

    run(work)


def test_a_connection_lost_before_the_subscription_stands_is_replaced_soon() -> None:
    async def work() -> None:
        broker = Refusing(None, leaves=True)
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            consumer = Consumer(mqtt(port), "test", ["a"], lambda _: None)
            async with consuming(consumer):
                began = time.monotonic()
                await until(lambda: broker.opened == 3, "it is tried again")
                assert time.monotonic() - began < 5
                assert not consumer.connected

    run(work)


# --- a broker that is killed, played ---


def killed_after(port: socket.socket, messages: int, asked: threading.Event) -> None:
    """Greet, send, and end without reading the acknowledgement that comes, as the killed do."""
    conn, _ = port.accept()
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `set_tcp_nodelay true` does
        conn.recv(4096)
        conn.sendall(packet(0x20, b"\0\0\0"))
        conn.recv(4096)
        conn.sendall(packet(0x90, b"\0\1\0\1"))
        for number in range(messages):
            conn.sendall(publish(b"paqett/v1/d/telemetry", b"%d" % number, packet_id=number + 1))
            asked.wait(DEADLINE_S)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_what_a_killed_broker_had_sent_is_read_though_the_connection_is_broken(
    runner: Any,
) -> None:
    messages = 3_000  # each a packet of its own; more than a window of unprepared sockets
    asked, held = threading.Event(), list[Message]()

    def take(message: Message) -> None:
        held.append(message)
        if len(held) == 1:
            consumer.acknowledge(held)
            asked.set()
            killing.join()  # nothing is read meanwhile: the rest lies in the socket
            consumer.acknowledge([])
            consumer._connection._transport.write(b"to nobody")

    async def work() -> None:
        task = asyncio.create_task(consumer.run())
        await until(lambda: len(held) == messages, f"{len(held)} of {messages}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with socket.create_server(("127.0.0.1", 0)) as port:
        killing = threading.Thread(target=killed_after, args=(port, messages, asked))
        killing.start()
        consumer = Consumer(mqtt(port.getsockname()[1]), "test", ["#"], take)
        runner(work())
    assert [message.payload for message in held] == [b"%d" % n for n in range(messages)]


# --- a real broker ---


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    with (tmp_path / "conf").open("a") as conf:
        conf.write("max_inflight_messages 0\n")
    broker.start()
    yield broker
    broker.kill()


def body(number: int) -> bytes:
    return b"%d" % number + b" " * (BODY - len(str(number)))


async def send(broker: Broker, numbers: range) -> None:
    async with broker.publisher() as publisher:
        await asyncio.gather(*(publisher.publish("telemetry", body(n)) for n in numbers))


def cut(consumer: Consumer) -> None:
    """Lose the connection, if there is one."""
    if consumer._connection is not None:
        consumer._connection._transport.abort()


def test_memory_does_not_grow_over_reconnects_while_nothing_is_acknowledged(broker) -> None:
    window = 200

    async def work() -> None:
        held: list[Message] = []
        seen: set[bytes] = set()

        def take(message: Message) -> None:
            held.append(message)
            seen.add(message.payload)

        def beyond_bounds() -> str:
            """What is held, where it is not what is in hand or more than two windows."""
            held_now, in_hand = len(held), consumer.unacknowledged
            fits = held_now == in_hand <= 2 * window + ONE_READ
            return "" if fits else f"{held_now} held, {in_hand} in hand"

        settings = mqtt(broker.port, receive_maximum=window)
        consumer = Consumer(settings, "writer", ["paqett/v1/+/#"], take)
        async with consuming(consumer):
            await until(lambda: consumer.connected, "subscribed")
            await send(broker, range(1500))
            await until(lambda: len(held) >= window, "the window is full")
            cut(consumer)
            await until(lambda: len(held) >= 2 * window, "what is in hand comes again, once")
            for _ in range(5):
                cut(consumer)
                await asyncio.sleep(0.3)
                assert not beyond_bounds()
            assert consumer.connections == 2
            for number in range(3, 8):
                # room for some: it comes back, and takes no more than there is room for
                freed = held[: len(held) - 350]
                del held[: len(freed)]
                consumer.acknowledge(freed)
                await until(lambda: consumer.unacknowledged >= 2 * window, "it reads again")
                await asyncio.sleep(0.1)
                assert not beyond_bounds()
                assert consumer.connections == number
                cut(consumer)
                await asyncio.sleep(0.1)
            while len(seen) < 1500 or consumer.unacknowledged:
                consumer.acknowledge(held)
                held.clear()
                await asyncio.sleep(0.01)
        assert (consumer.unacknowledged, consumer._bytes) == (0, 0)

    run(work)


def test_a_pause_for_good_outlasts_the_connection(broker) -> None:
    async def work() -> None:
        held: list[Message] = []
        consumer = Consumer(mqtt(broker.port), "writer", ["paqett/v1/+/#"], held.append)
        async with consuming(consumer):
            await until(lambda: consumer.connected, "subscribed")
            await send(broker, range(10))
            await until(lambda: len(held) == 10, "they come")
            consumer.pause()
            for number in (2, 3):
                cut(consumer)
                await until(lambda number=number: consumer.connections == number, "it is back")
                before = len(held)
                consumer.acknowledge(held[:10] if number == 2 else [])
                await send(broker, range(10, 1010))
                await asyncio.sleep(0.5)
                # what came in one piece with the broker's greeting cannot be left
                assert len(held) <= before + ONE_READ
                assert len(held) == before or number == 3

    run(work)
