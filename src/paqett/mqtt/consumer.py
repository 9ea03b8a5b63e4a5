"""Receive QoS 1 messages and acknowledge each only when told to: gmqtt with its traps closed.

One gmqtt `Client` lives for one connection. gmqtt's own reconnect is never used: it does not
resubscribe, gives up after refused credentials, and its acknowledgements outlive the connection.
Here a message remembers the connection it came on, and is acknowledged there or nowhere: the
broker sends it again, and the reading's identity makes the second copy a duplicate.

gmqtt builds several objects and runs one coroutine for each PUBLISH, and acknowledges from its
done-callback. Here PUBLISH packets are read where gmqtt cuts its buffer into packets; all others
take gmqtt's way. That costs a fifth, and cannot leak the window when a handler raises.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gmqtt
import msgspec
from gmqtt.mqtt.handler import MQTTError
from gmqtt.mqtt.package import Package

from paqett import log
from paqett.errors import ConfigurationError
from paqett.mqtt.closing import close_client, losing
from paqett.mqtt.connection import Client, tls_of
from paqett.mqtt.guarded import require_places
from paqett.mqtt.subscribing import (
    ConnectionRefusedByBroker,
    answer,
    check_granted,
    subscription,
)
from paqett.mqtt.wire import PUBACK, pubacks, variable_integer
from paqett.settings import Mqtt

_logger = log.get("mqtt")
_NEVER_EXPIRES = 0xFFFF_FFFF
_CONNECT_S = 10.0
_LONGEST_WAIT_S = 0.2
_MOST_BYTES = 64 * 2**20  # in hand, before the socket is not read any more
_OVERHEAD_BYTES = 300
_LONGEST_TOPIC = 1000  # characters; more than five levels of metric names are refused anyway


class Message(msgspec.Struct, eq=False, gc=False):
    """One delivery. `packet_id` is None at QoS 0; `size` is what it takes in memory, in bytes."""

    topic: str
    payload: bytes
    connection: Any
    packet_id: int | None
    size: int


class Consumer:
    """A subscription that survives broker restarts.

    `on_message` is called for each delivery, in order, and must not block. Each must be handed to
    `acknowledge` in the end, at QoS 0 too, since what is in hand is counted. Retained deliveries
    are acknowledged and dropped. While twice the window or 64 MiB are in hand the socket is not
    read: Mosquitto 2.0.11 ignores `receive_maximum`.
    """

    def __init__(
        self,
        settings: Mqtt,
        client_id: str,
        topics: Iterable[str],
        on_message: Callable[[Message], None],
    ) -> None:
        self._settings = settings
        self._tls = tls_of(settings)
        self._client_id = client_id
        self._topics = list(topics)
        self._on_message = on_message
        self._lost = asyncio.Event()
        self._connection: Any = None
        self._client: gmqtt.Client | None = None
        self._unacknowledged = self._bytes = 0
        self._most = 2 * settings.receive_maximum
        self._paused = self._held = False
        self.connections = 0
        self.stale_acknowledgements = 0
        self.broker_dropped: int | None = None  # what the broker says; not before it has said so

    @property
    def connected(self) -> bool:
        """Whether the subscriptions are in force now."""
        return self._client is not None and self._client.is_connected

    @property
    def unacknowledged(self) -> int:
        """Messages in hand: received, on whichever connection, and not acknowledged yet."""
        return self._unacknowledged

    async def run(self) -> None:
        """Stay connected until cancelled; waits 0.05 to 0.2 s between attempts, with jitter.

        No longer: what devices send meanwhile lies in the broker's memory.
        """
        delay = 0.1
        while True:
            # what comes again would be in memory twice
            while self._is_too_much():  # noqa: ASYNC110 - rare, and nothing to be told by
                await asyncio.sleep(0.1)
            try:
                client = await self._connect()
            except (OSError, TimeoutError, MQTTError, ConnectionRefusedByBroker) as error:
                _logger.warning("broker not reached", error=str(error), retry_in_s=delay)
            else:
                delay = 0.1
                await self._until_lost(client)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, _LONGEST_WAIT_S)

    async def _until_lost(self, client: gmqtt.Client) -> None:
        self._client = client
        try:
            await self._lost.wait()
            _logger.warning("broker connection lost", unacknowledged=self._unacknowledged)
        finally:
            self._client = self._connection = None
            await close_client(client)

    async def _connect(self) -> gmqtt.Client:
        client = Client(
            self._client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=_NEVER_EXPIRES,
            receive_maximum=self._settings.receive_maximum,
        )
        self._lost = losing(client)
        self._read_publishes(client, self._lost)
        client.set_auth_credentials(self._settings.username, self._settings.password)
        answered = answer(client)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    self._settings.host, self._settings.port, ssl=self._tls or False, keepalive=20
                )
                self._adopt(client._connection)  # noqa: SLF001 - its transport is written to
                client.subscribe([subscription(topic) for topic in self._topics])
            check_granted(await self._answer(answered))
        except BaseException:
            self._connection = None
            await close_client(client)
            raise
        _logger.info("subscribed", connection=self.connections)
        return client

    async def _answer(self, answered: asyncio.Future[tuple[int, ...]]) -> tuple[int, ...]:
        """SUBACK; the session's backlog comes before it, and is not read while too much is in hand.

        Raises `TimeoutError`, and `ConnectionResetError` once the connection is lost.
        """
        lost = asyncio.create_task(self._lost.wait())
        either: set[asyncio.Future[Any]] = {answered, lost}
        try:
            while True:
                await asyncio.wait(either, timeout=_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
                if answered.done():
                    return answered.result()
                if lost.done():
                    raise ConnectionResetError("lost before the subscription was answered")
                if not self._paused:
                    raise TimeoutError("the broker does not answer the subscription")
                self.keep_alive()
        finally:
            lost.cancel()

    def _adopt(self, connection: Any) -> None:
        """Make `connection` the current one; the session's backlog may come before SUBACK does."""
        if connection is self._connection:
            return
        self._connection = connection
        self._paused = False
        self.connections += 1
        if self._held or self._is_too_much():
            self._pause()

    def _read_publishes(self, client: gmqtt.Client, lost: asyncio.Event) -> None:
        """Put our reader of PUBLISH packets in the place of gmqtt's.

        Raises `ConfigurationError` where this gmqtt has no such place.
        """
        handler = client._package_handler  # noqa: SLF001 - the guarded place
        require_places(handler, "set_connection")
        original = handler.set_connection

        def set_connection(connection: Any) -> None:
            original(connection)
            protocol = connection._protocol  # noqa: SLF001 - the guarded place
            require_places(protocol, "_read_packet")

            def read(data: bytes) -> int:
                if lost.is_set():  # what is buffered of a lost connection comes again on the next
                    return len(data)
                if protocol.proto_ver != 5:
                    raise ConfigurationError("the broker does not speak MQTT 5")
                return self._read(connection, data)

            protocol._read_packet = read  # noqa: SLF001 - the guarded place

        handler.set_connection = set_connection

    def _read(self, connection: Any, data: bytes) -> int:
        """Take the whole packets in `data`; how many bytes they were (MQTT 5 §2.1, §3.3)."""
        position, size = 0, len(data)
        while size - position >= 2:
            length, start = data[position + 1], position + 2
            if length > 127:
                length, start = variable_integer(data, position + 1)
            end = start + length
            if end > size or length < 0:
                break
            kind = data[position]
            if kind & 0xF0 == 0x30:
                self._take(connection, kind, data, start, end)
            else:
                connection.put_package(Package(kind, data[start:end]))
            position = end
        return position

    def _take(self, connection: Any, kind: int, data: bytes, start: int, end: int) -> None:
        """One PUBLISH: topic, packet id at QoS 1, properties we asked for none of, payload.

        No call that can be spared: this is a fifth of what a message costs ingest.
        """
        after = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : after].decode("utf-8", "replace")
        packet_id = None
        if kind & 0x06:
            packet_id = data[after] << 8 | data[after + 1]
            after += 2
        skip = data[after]
        after += 1
        if skip:
            if skip > 127:
                skip, after = variable_integer(data, after - 1)
            after += skip
        payload = data[after:end]
        if topic[:5] == "$SYS/":
            self._note_dropped(payload)
            if packet_id is not None:
                connection._transport.write(pubacks([PUBACK | packet_id]))  # noqa: SLF001
            return
        if connection is not self._connection:
            self._adopt(connection)
        if len(topic) > _LONGEST_TOPIC:
            topic = topic[:_LONGEST_TOPIC]
        size = len(topic) + len(payload) + _OVERHEAD_BYTES
        message = Message(topic, payload, connection, packet_id, size)
        self._unacknowledged += 1
        self._bytes += size
        if kind & 1:
            self.acknowledge((message,))
            return
        if self._unacknowledged >= self._most or self._bytes > _MOST_BYTES:
            self._pause()
        self._on_message(message)

    def _is_too_much(self) -> bool:
        return self._unacknowledged >= self._most or self._bytes > _MOST_BYTES

    def keep_alive(self) -> None:
        """To be called every few seconds: gmqtt takes a socket nobody reads for a dead one."""
        if self._paused and self._connection is not None:
            self._connection._last_data_in = time.monotonic()  # noqa: SLF001 - no public way

    def _note_dropped(self, payload: bytes) -> None:
        if payload.isdigit() and len(payload) < 20:  # Python refuses to read 4300 digits
            self.broker_dropped = int(payload)

    def pause(self) -> None:
        """Stop reading for good: what is in hand is to be finished."""
        self._held = True
        self._pause()

    def _pause(self) -> None:
        if self._connection is not None and not self._paused:
            self._paused = True
            if not self._connection.is_closing():
                self._connection._transport.pause_reading()  # noqa: SLF001 - no public way

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that these need not be kept; in the order they came.

        What came on an earlier connection is skipped: its packet id may by now mean another one.
        """
        current, owed = self._connection, []
        for message in messages:
            packet_id = message.packet_id
            if message.connection is not current:
                self.stale_acknowledgements += packet_id is not None
            elif packet_id is not None:
                owed.append(PUBACK | packet_id)
        self._unacknowledged -= len(messages)
        self._bytes -= sum([message.size for message in messages])
        if current is None or current.is_closing():
            return
        if owed:
            current._transport.write(pubacks(owed))  # noqa: SLF001 - one write for them all
        if (
            self._paused
            and not self._held
            and self._unacknowledged < self._settings.receive_maximum
            and self._bytes <= _MOST_BYTES // 2
        ):
            self._paused = False
            current._transport.resume_reading()  # noqa: SLF001 - gmqtt has no public way

    def publish(self, topic: str, payload: bytes) -> None:
        """Send at QoS 0 where the connection stands; nothing otherwise."""
        if self._client is not None and self._client.is_connected:
            self._client.publish(topic, payload, qos=0)
