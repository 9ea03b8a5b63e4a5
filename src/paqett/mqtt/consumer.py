"""Receive QoS 1 messages and acknowledge each only when told to: gmqtt with its traps closed.

One gmqtt `Client` lives for one connection. gmqtt's own reconnect is never used: it does not
resubscribe, gives up after refused credentials, and its acknowledgements outlive the connection.
Here a message remembers the connection it came on, and is acknowledged there or nowhere: the
broker sends it again, and the reading's identity makes the second copy a duplicate.

gmqtt runs one coroutine a message and acknowledges from its done-callback; taking its QoS 1
handler's place costs half as much and cannot leak the window when a handler raises.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Iterable
from typing import Any

import gmqtt
from gmqtt.mqtt.handler import MQTTError, MqttPackageHandler

from paqett import log
from paqett.errors import ConfigurationError, PaqettError
from paqett.mqtt.closing import close_client
from paqett.settings import Mqtt

_logger = log.get("mqtt")
_puback = struct.Struct("!BBH").pack  # MQTT 5 §3.4.2.1: without a reason code it is success
_NEVER_EXPIRES = 0xFFFF_FFFF
_OVERRIDDEN = ("_handle_qos_1_publish_packet", "_reconnect_callback")


class ConnectionRefusedByBroker(PaqettError):
    """The broker did not take our credentials or our subscriptions."""


class Message:
    """One delivery. `packet_id` is None at QoS 0."""

    __slots__ = ("connection", "packet_id", "payload", "topic")

    def __init__(self, topic: str, payload: bytes, connection: Any, packet_id: int | None) -> None:
        self.topic = topic
        self.payload = payload
        self.connection = connection
        self.packet_id = packet_id


class Consumer:
    """A subscription that survives broker restarts.

    `on_message` is called for each delivery, in order, and must not block. Retained deliveries are
    acknowledged and dropped. While twice the window is unacknowledged the socket is not read:
    Mosquitto 2.0.11 ignores `receive_maximum`.
    """

    def __init__(
        self,
        settings: Mqtt,
        client_id: str,
        topics: Iterable[str],
        on_message: Callable[[Message], None],
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._topics = list(topics)
        self._on_message = on_message
        self._lost = asyncio.Event()
        self._connection: Any = None
        self._unacknowledged = 0
        self._paused = False
        self.connections = 0
        self.stale_acknowledgements = 0

    @property
    def connected(self) -> bool:
        """Whether the subscriptions are in force now."""
        return self._connection is not None

    @property
    def unacknowledged(self) -> int:
        """Messages received on this connection and not acknowledged yet."""
        return self._unacknowledged

    async def run(self) -> None:
        """Stay connected until cancelled; waits 0.1 to 10 s between attempts, with jitter."""
        delay = 0.1
        while True:
            try:
                client = await self._connect()
            except (OSError, TimeoutError, MQTTError, ConnectionRefusedByBroker) as error:
                _logger.warning("broker not reached", error=str(error), retry_in_s=delay)
            else:
                delay = 0.1
                await self._until_lost(client)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, 10.0)

    async def _until_lost(self, client: gmqtt.Client) -> None:
        try:
            await self._lost.wait()
            _logger.warning("broker connection lost", unacknowledged=self._unacknowledged)
        finally:
            self._connection = None
            await close_client(client)

    async def _connect(self) -> gmqtt.Client:
        self._lost = lost = asyncio.Event()
        client = gmqtt.Client(
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
        client.on_message = self._receive_qos_0
        try:
            async with asyncio.timeout(10):
                await client.connect(
                    self._settings.host, self._settings.port, ssl=self._settings.tls, keepalive=20
                )
                self._adopt(client._connection)  # noqa: SLF001 - its transport is written to
                client.subscribe(
                    [
                        gmqtt.Subscription(topic, qos=1, no_local=True, retain_handling_options=2)
                        for topic in self._topics
                    ]
                )
                codes = await granted
        except BaseException:
            self._connection = None
            await close_client(client)
            raise
        if any(code >= 0x80 for code in codes):
            raise ConnectionRefusedByBroker(f"the broker refused a subscription: {codes}")
        _logger.info("subscribed", connection=self.connections)
        return client

    def _adopt(self, connection: Any) -> None:
        """Make `connection` the current one; the session's backlog may come before SUBACK does."""
        if connection is self._connection:
            return
        self._connection = connection
        self._unacknowledged = 0
        self._paused = False
        self.connections += 1

    def _take_over(self, handler: MqttPackageHandler, lost: asyncio.Event) -> None:
        """Put our QoS 1 handler and our reconnect in gmqtt's places.

        Raises `ConfigurationError` where this gmqtt has no such places.
        """
        if not all(hasattr(handler, name) for name in _OVERRIDDEN):
            raise ConfigurationError("this gmqtt is not the 0.8 that Paqett was built against")

        async def note_loss(**_: object) -> None:
            lost.set()

        def receive(mid: int, payload: bytes, topic: str, properties: dict[str, Any]) -> None:
            if not lost.is_set():  # a buffered packet of a lost connection comes again on the next
                self._receive_qos_1(handler.current_connection, mid, payload, topic, properties)

        handler._reconnect_callback = note_loss  # noqa: SLF001 - the guarded place
        handler._handle_qos_1_publish_packet = receive  # noqa: SLF001 - the guarded place

    def _receive_qos_1(
        self, connection: Any, mid: int, payload: bytes, topic: str, properties: dict[str, Any]
    ) -> None:
        self._adopt(connection)
        message = Message(topic, payload, connection, mid)
        self._unacknowledged += 1
        if properties["retain"]:
            self.acknowledge((message,))
            return
        if self._unacknowledged >= 2 * self._settings.receive_maximum:
            self.pause()
        self._on_message(message)

    def pause(self) -> None:
        """Stop reading the socket; acknowledging below the window starts it again."""
        if self._connection is not None and not self._paused:
            self._paused = True
            self._connection._transport.pause_reading()  # noqa: SLF001 - no public way

    def _receive_qos_0(
        self, _client: Any, topic: str, payload: bytes, _qos: int, properties: dict[str, Any]
    ) -> int:
        if not properties["retain"]:
            self._on_message(Message(topic, payload, None, None))
        return 0

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker that these need not be kept; in the order they came.

        What came on an earlier connection is skipped: its packet id may by now mean another one.
        """
        current, parts = self._connection, []
        for message in messages:
            if message.packet_id is None:
                continue
            if message.connection is current:
                parts.append(_puback(0x40, 2, message.packet_id))
            else:
                self.stale_acknowledgements += 1
        if not parts or current is None or current.is_closing():
            return
        current._transport.write(b"".join(parts))  # noqa: SLF001 - one write for the whole batch
        self._unacknowledged -= len(parts)
        if self._paused and self._unacknowledged < self._settings.receive_maximum:
            self._paused = False
            current._transport.resume_reading()  # noqa: SLF001 - gmqtt has no public way
