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
import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gmqtt
import msgspec
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTError, MqttPackageHandler
from gmqtt.mqtt.package import Package
from gmqtt.mqtt.protocol import MQTTProtocol

from paqett import log
from paqett.errors import ConfigurationError, PaqettError
from paqett.mqtt.closing import close_client
from paqett.settings import Mqtt

_logger = log.get("mqtt")
_PUBACK = 0x4002_0000  # MQTT 5 §3.4.2.1: without a reason code it is success
_NEVER_EXPIRES = 0xFFFF_FFFF
_CONNECT_S = 10.0
_LONGEST_WAIT_S = 0.2
_MOST_BYTES = 64 * 2**20  # in hand, before the socket is not read any more
_OVERHEAD_BYTES = 300
_SEGMENT_BYTES = 384  # at most ten of the shortest messages, as many as a connection starts with
_LONGEST_TOPIC = 1000  # characters; more than five levels of metric names are refused anyway
_OVERRIDDEN = ("set_connection", "_reconnect_callback")
_OTHER_GMQTT = "this gmqtt is not the 0.8 that Paqett was built against"


class ConnectionRefusedByBroker(PaqettError):
    """The broker did not take our credentials or our subscriptions."""


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
        self._lost = lost = asyncio.Event()
        client = _Client(
            self._client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=_NEVER_EXPIRES,
            receive_maximum=self._settings.receive_maximum,
        )
        self._take_over(client._package_handler, lost)  # noqa: SLF001 - the guarded place
        client.set_auth_credentials(self._settings.username, self._settings.password)
        granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        def note_granted(_client: Any, _mid: int, codes: tuple[int, ...], _properties: Any) -> None:
            if not granted.done():
                granted.set_result(codes)

        client.on_subscribe = note_granted
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    self._settings.host, self._settings.port, ssl=self._tls or False, keepalive=20
                )
                self._adopt(client._connection)  # noqa: SLF001 - its transport is written to
                client.subscribe([_subscription(topic) for topic in self._topics])
            codes = await self._granted(granted)
            if any(code >= 0x80 for code in codes):
                raise ConnectionRefusedByBroker(f"the broker refused a subscription: {codes}")
        except BaseException:
            self._connection = None
            await close_client(client)
            raise
        _logger.info("subscribed", connection=self.connections)
        return client

    async def _granted(self, granted: asyncio.Future[tuple[int, ...]]) -> tuple[int, ...]:
        """SUBACK; the session's backlog comes before it, and is not read while too much is in hand.

        Raises `TimeoutError`, and `ConnectionResetError` once the connection is lost.
        """
        losing = asyncio.create_task(self._lost.wait())
        either: set[asyncio.Future[Any]] = {granted, losing}
        try:
            while True:
                await asyncio.wait(either, timeout=_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
                if granted.done():
                    return granted.result()
                if losing.done():
                    raise ConnectionResetError("lost before the subscription was answered")
                if not self._paused:
                    raise TimeoutError("the broker does not answer the subscription")
                self.keep_alive()
        finally:
            losing.cancel()

    def _adopt(self, connection: Any) -> None:
        """Make `connection` the current one; the session's backlog may come before SUBACK does."""
        if connection is self._connection:
            return
        self._connection = connection
        self._paused = False
        self.connections += 1
        if self._held or self._is_too_much():
            self._pause()

    def _take_over(self, handler: MqttPackageHandler, lost: asyncio.Event) -> None:
        """Put our reader of PUBLISH packets and our reconnect in gmqtt's places.

        Raises `ConfigurationError` where this gmqtt has no such places.
        """
        if not all(hasattr(handler, name) for name in _OVERRIDDEN):
            raise ConfigurationError(_OTHER_GMQTT)

        async def note_loss(**_: object) -> None:
            lost.set()

        original = handler.set_connection

        def set_connection(connection: Any) -> None:
            original(connection)
            protocol = connection._protocol  # noqa: SLF001 - the guarded place
            if not hasattr(protocol, "_read_packet"):
                raise ConfigurationError(_OTHER_GMQTT)

            def read(data: bytes) -> int:
                if lost.is_set():  # what is buffered of a lost connection comes again on the next
                    return len(data)
                if protocol.proto_ver != 5:
                    raise ConfigurationError("the broker does not speak MQTT 5")
                return self._read(connection, data)

            protocol._read_packet = read  # noqa: SLF001 - the guarded place

        handler._reconnect_callback = note_loss  # noqa: SLF001 - the guarded place
        handler.set_connection = set_connection

    def _read(self, connection: Any, data: bytes) -> int:
        """Take the whole packets in `data`; how many bytes they were (MQTT 5 §2.1, §3.3)."""
        position, size = 0, len(data)
        while size - position >= 2:
            length, start = data[position + 1], position + 2
            if length > 127:
                length, start = _variable_integer(data, position + 1)
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
                skip, after = _variable_integer(data, after - 1)
            after += skip
        payload = data[after:end]
        if topic[:5] == "$SYS/":
            self._note_dropped(payload)
            if packet_id is not None:
                connection._transport.write(_pubacks([_PUBACK | packet_id]))  # noqa: SLF001
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
                owed.append(_PUBACK | packet_id)
        self._unacknowledged -= len(messages)
        self._bytes -= sum([message.size for message in messages])
        if current is None or current.is_closing():
            return
        if owed:
            current._transport.write(_pubacks(owed))  # noqa: SLF001 - one write for them all
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


class _Protocol(MQTTProtocol):  # type: ignore[misc] # gmqtt has no types
    """gmqtt's own, without the stream and the task between the socket and the reader of packets.

    A broker that was killed has acknowledged what still lies in our socket, and forgotten it: that
    is read before the connection is called lost. Where we end the connection it comes again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = b""

    async def _read_loop(self) -> None:
        """Nothing to do: what comes is read at once."""

    def data_received(self, data: bytes) -> None:
        if self._left:
            data = self._left + data
        try:
            self._left = data[self._read_packet(data) :]
        except (ConnectionResetError, ConfigurationError) as error:
            _logger.error("broker not understood", error=str(error))
            self._transport.abort()

    def eof_received(self) -> None:
        """Close: the broker has nothing more to say."""

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._transport.get_extra_info("ssl_object") is None:
            with suppress(OSError):
                while data := os.read(self._transport.get_extra_info("socket").fileno(), 2**18):
                    self.data_received(data)
        super().connection_lost(exc)


class _Client(gmqtt.Client):  # type: ignore[misc] # gmqtt has no types
    """gmqtt's own with our protocol."""

    async def _create_connection(
        self, host: str, port: int, ssl: Any, clean_session: bool, keepalive: int
    ) -> Any:
        state, handler = self._connection_state, self._package_handler
        factory = partial(_Protocol, connection_state=state, id_generator=handler.id_generator)
        sock = await _open_socket(host, port)
        name = host if ssl else None
        try:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=ssl, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        return MQTTConnection(transport, protocol, clean_session, keepalive, handler)


async def _open_socket(host: str, port: int) -> socket.socket:
    """Connect with room for what a broker has sent, and so that its kernel keeps none of it back.

    What waits in a killed broker's kernel is lost. It waits for our kernel's acknowledgements,
    which come at once for each `TCP_MAXSEG` bytes as long as the window we advertise is much
    smaller than the room there is. Setting a low-water mark makes the room, half of what
    `net.ipv4.tcp_rmem` allows, where `SO_RCVBUF` would need privileges. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            _prepare(sock)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError(f"{host} has no address")


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    for mark in (2**31 - 1, 1):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
    room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, room // 8)


def tls_of(settings: Mqtt) -> ssl.SSLContext | None:
    """The context. Raises `ConfigurationError` for a certificate authority that cannot be read."""
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except OSError as error:
        raise ConfigurationError(f"mqtt.tls_ca_file: {settings.tls_ca_file}: {error}") from None


def _subscription(topic: str) -> gmqtt.Subscription:
    """QoS 1, nothing retained, nothing of our own; No Local is an error with $share (§3.8.3.1)."""
    alone = not topic.startswith("$share/")
    # what the broker counted while nobody was there is retained, and wanted
    retained = 0 if topic.startswith("$SYS/") else 2
    return gmqtt.Subscription(topic, qos=1, no_local=alone, retain_handling_options=retained)


def _pubacks(packets: list[int]) -> bytes:
    return struct.pack(f"!{len(packets)}I", *packets)


def _variable_integer(data: bytes, position: int) -> tuple[int, int]:
    """The integer at `position` and its end; (-1, …) where it is not whole (MQTT 5 §1.5.5)."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            return -1, position
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, position
    raise ConnectionResetError("the broker sent a packet of no known length")
