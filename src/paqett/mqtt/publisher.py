"""A device's side of MQTT: publish at QoS 1 and know when the broker has acknowledged.

One gmqtt `Client` for one connection, as in `consumer`. What a lost connection left unacknowledged
is sent again on the next; a reading that carries its own time is stored once all the same.
"""

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import Any, Self

import gmqtt
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler

from paqett import log
from paqett.errors import PaqettError
from paqett.mqtt.closing import close_client, losing, until_lost
from paqett.mqtt.guarded import require_places
from paqett.mqtt.in_flight import Entry, InFlight

_logger = log.get("mqtt")
_TAKEN_OVER = b"\x8e"  # MQTT 5 §3.14.2.1: session taken over
_CREDENTIALS = frozenset({4, 5, 0x86, 0x87})
_WINDOW = 100  # messages in flight, or fewer where the broker says so
_KEEPALIVE_S = 30
_CONNECT_S = 10.0
_PROBE_S = 0.5
_SPARE_BYTES = 64  # what a PUBLISH packet may hold beside topic and payload


class CredentialsRefusedError(PaqettError):
    """The broker knows no such device, or its secret has been changed."""


class Publisher:
    """A device's connection that comes back by itself: `async with`, or `run()` as a task.

    While the broker is away `kept` messages wait; beyond them the oldest is dropped and counted.
    """

    def __init__(
        self, host: str, port: int, device_id: str, secret: str, *, tls: bool = False,
        takeover_wait_s: float = 60.0, refused_wait_s: float = 60.0, kept: int = 10_000,
    ) -> None:  # fmt: skip
        self._host, self._port, self._tls = host, port, tls
        self._device_id, self._secret = device_id, secret
        self._takeover_wait_s = takeover_wait_s
        self._refused_wait_s = refused_wait_s
        self._kept = kept
        self._queue: deque[Entry] = deque()
        self._in_flight = InFlight(self._settle)
        self._client: gmqtt.Client | None = None
        self._window, self._max_packet = _WINDOW, 0
        self._lost = asyncio.Event()
        self._taken_over = self._told = False
        self._running: asyncio.Task[None] | None = None
        self.credentials_refused = False
        self.dropped = self.refused = self.connections = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this connection and it still stands."""
        return self._client is not None and not self._lost.is_set()

    @property
    def waiting(self) -> int:
        """Messages not acknowledged yet."""
        return len(self._queue) + len(self._in_flight.entries)

    def enqueue(self, suffix: str, payload: bytes) -> asyncio.Future[None]:
        """Hand over a message for `paqett/v1/{device}/{suffix}`; the future ends with its PUBACK.

        It ends with `NotPublishedError` where the message is refused or dropped.
        """
        entry = Entry(f"paqett/v1/{self._device_id}/{suffix}", payload)
        self._queue.append(entry)
        self._pump()
        if self._queue and self.waiting > self._kept:
            self.dropped += 1
            self._queue.popleft().fail("dropped: too many messages wait for the broker")
        return entry.future

    async def publish(self, suffix: str, payload: bytes) -> None:
        """Return when the broker has acknowledged the message. Raises `NotPublishedError`."""
        await self.enqueue(suffix, payload)

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is unacknowledged, `timeout_s` seconds at most."""
        entries = [*self._in_flight.entries.values(), *self._queue]
        if entries:
            await asyncio.wait([entry.future for entry in entries], timeout=timeout_s)

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace_s: float = 0.0) -> None:
        """End the connection, after `grace_s` seconds at most for what is unacknowledged."""
        if grace_s and self.connected:
            await self.drain(grace_s)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def run(self) -> None:
        """Stay connected until cancelled: 0.2 to 30 s between attempts, with jitter.

        After a takeover 60 s, lest two owners of one secret push each other out for ever. After
        refused credentials 5 s, since a new device is known within a second, then up to 60 s.
        """
        delay, refused_delay = 0.2, min(5.0, self._refused_wait_s)
        while True:
            try:
                connection = await self._connect()
                delay, refused_delay = 0.2, min(5.0, self._refused_wait_s)
                await until_lost(connection, self._lost, _KEEPALIVE_S)
                wait, why = _jittered(delay), "connection lost"
                if self._taken_over or await self._singled_out():
                    wait, why = self._takeover_wait_s, "another connection took over"
            except CredentialsRefusedError as error:
                wait, why = _jittered(refused_delay), str(error)
                refused_delay = min(refused_delay * 2, self._refused_wait_s)
            except Exception as error:  # whatever it was, a device tries again
                wait, why = _jittered(delay), str(error) or type(error).__name__
                delay = min(delay * 2, 30.0)
            finally:
                await self._disconnect()
            _logger.warning(
                "broker away", device=self._device_id, error=why, retry_in_s=round(wait, 1)
            )
            await asyncio.sleep(wait)

    async def _connect(self) -> Any:
        self._taken_over = self._told = False
        self._in_flight = InFlight(self._settle)
        client = gmqtt.Client(self._device_id, persistent_storage=self._in_flight)
        self._lost = losing(client)
        _note_reasons(client._package_handler, self._in_flight)  # noqa: SLF001 - the guarded place
        client.set_auth_credentials(self._device_id, self._secret)
        client.on_disconnect = self._note_reason
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected_or_lost(client)
        except BaseException as error:
            await close_client(client)
            code = error._code if isinstance(error, MQTTConnectError) else None  # noqa: SLF001 - shown nowhere else
            self.credentials_refused = code in _CREDENTIALS
            if self.credentials_refused:
                raise CredentialsRefusedError(f"credentials refused: {error}") from None
            raise
        self.credentials_refused = False
        self.connections += 1
        said = client._package_handler.properties  # noqa: SLF001 - what CONNACK said
        # gmqtt overflows one message before the broker's receive maximum
        self._window = max(1, min(_WINDOW, said.get("receive_maximum", [_WINDOW + 1])[0] - 1))
        self._max_packet = said.get("maximum_packet_size", [0])[0]
        self._client = client
        self._pump()
        return client._connection  # noqa: SLF001 - its clock is nowhere else

    async def _connected_or_lost(self, client: gmqtt.Client) -> None:
        """gmqtt waits for CONNACK for ever, even where the broker has closed the socket."""
        lost = asyncio.create_task(self._lost.wait())
        connecting = asyncio.create_task(
            client.connect(self._host, self._port, ssl=self._tls, keepalive=_KEEPALIVE_S)
        )
        try:
            await asyncio.wait({connecting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise ConnectionError("the broker closed the connection before accepting it")
            connecting.result()
        finally:
            lost.cancel()
            connecting.cancel()
            await asyncio.gather(connecting, lost, return_exceptions=True)

    def _note_reason(self, _client: Any, packet: Any, *_: Any) -> None:
        if isinstance(packet, bytes) and packet:
            self._told = True
            self._taken_over = packet[:1] == _TAKEN_OVER

    async def _singled_out(self) -> bool:
        """Whether the broker hung up on us without a reason and is still there.

        Mosquitto 2.0.11 says nothing when another connection takes over. One that was killed or
        restarts does not answer, and a proxy before it hangs up at once.
        """
        if self._told or not self._lost.is_set():
            return False
        writer = None
        try:
            async with asyncio.timeout(_PROBE_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                await reader.read(1)  # a broker waits for our CONNECT
        except TimeoutError:
            return writer is not None
        except OSError:
            return False
        else:
            return False
        finally:
            if writer is not None:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _disconnect(self) -> None:
        """Close, and put back what this connection left unacknowledged, in order."""
        client, self._client = self._client, None
        self._queue.extendleft(reversed(self._in_flight.entries.values()))
        self._in_flight.entries.clear()
        if client is not None:
            await close_client(client)

    def _pump(self) -> None:
        """Send what waits, as far as the window allows."""
        client = self._client
        while (
            self._queue
            and client is not None
            and client.is_connected
            and len(self._in_flight.entries) < self._window
        ):
            entry = self._queue.popleft()
            size = len(entry.payload) + len(entry.topic) + _SPARE_BYTES
            if self._max_packet and size > self._max_packet:  # the broker would hang up, each time
                self.refused += 1
                entry.fail(f"larger than the {self._max_packet} bytes the broker takes")
                continue
            self._in_flight.entering = entry
            client.publish(entry.topic, entry.payload, qos=1)

    def _settle(self, entry: Entry, reason: int) -> None:
        if reason >= 0x80:
            self.refused += 1
            entry.fail(f"refused by the broker with reason {reason:#x}")
        elif not entry.future.done():
            entry.future.set_result(None)
        self._pump()


def _jittered(delay_s: float) -> float:
    return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def _note_reasons(handler: MqttPackageHandler, in_flight: InFlight) -> None:
    """Keep the reason of each PUBACK, which gmqtt ignores.

    Raises `ConfigurationError` where this gmqtt has no such place.
    """
    require_places(handler, "_handle_puback_packet")
    original = handler._handle_puback_packet  # noqa: SLF001 - the guarded place

    def puback(cmd: int, packet: bytes) -> None:
        in_flight.reason = packet[2] if len(packet) > 2 else 0
        original(cmd, packet)

    handler._handle_puback_packet = puback  # noqa: SLF001 - the guarded place
