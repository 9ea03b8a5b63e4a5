"""A device's side of MQTT: publish at QoS 1 and know when the broker has acknowledged.

One gmqtt `Client` for one connection, as in `consumer`. What a lost connection left unacknowledged
is sent again on the next; a reading that carries its own time is stored once all the same.
"""

import asyncio
import random
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import gmqtt
from gmqtt.mqtt.handler import MQTTConnectError, MQTTError

from paqett import log

_logger = log.get("mqtt")
_TAKEN_OVER = 0x8E  # MQTT 5 §3.14.2.1: session taken over
_REFUSED = frozenset({4, 5, 0x86, 0x87})
_WINDOW = 100  # in flight; gmqtt overflows at the server's receive maximum
_KEPT = 10_000  # messages kept while the broker is away


class _Acknowledgements:
    """Stands where gmqtt keeps unacknowledged packets: removal is the acknowledgement."""

    is_empty = True

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.newest = asyncio.get_running_loop().create_future()

    def push_message(self, mid: int, _: bytes) -> None:
        self.newest = self.waiting[mid] = asyncio.get_running_loop().create_future()

    def remove_message_by_mid(self, mid: int) -> None:
        future = self.waiting.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def wait_empty(self) -> None:
        """Nothing is replayed by gmqtt."""

    def clear(self) -> None:
        """Nothing to clear: a connection's end settles what waits."""

    def get_all(self) -> list[Any]:
        return []


class Publisher:
    """A device's connection that comes back by itself."""

    def __init__(
        self, host: str, port: int, device_id: str, secret: str,
        *, tls: bool = False, takeover_wait_s: float = 60.0,
    ) -> None:  # fmt: skip
        self._host, self._port, self._tls = host, port, tls
        self._device_id, self._secret = device_id, secret
        self._takeover_wait_s = takeover_wait_s
        self._queue: OrderedDict[int, tuple[str, bytes, asyncio.Future[None]]] = OrderedDict()
        self._number = 0
        self._some = asyncio.Event()
        self._lost = asyncio.Event()
        self._taken_over = False
        self._client: gmqtt.Client | None = None
        self.dropped = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this connection."""
        return self._client is not None

    def enqueue(self, suffix: str, payload: bytes) -> asyncio.Future[None]:
        """Hand over a message for `paqett/v1/{device}/{suffix}`; the future ends with its PUBACK.

        Beyond 10,000 messages waiting, the oldest is dropped and its future cancelled.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        self._queue[self._number] = (suffix, payload, future)
        if len(self._queue) > _KEPT:
            _, (_, _, oldest) = self._queue.popitem(last=False)
            oldest.cancel()
            self.dropped += 1
        self._some.set()
        return future

    async def publish(self, suffix: str, payload: bytes) -> None:
        """Return when the broker has acknowledged the message."""
        await self.enqueue(suffix, payload)

    async def run(self) -> None:
        """Stay connected until cancelled: 0.2 to 30 s between attempts, 60 s after a takeover."""
        delay = 0.2
        while True:
            wait = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, 30.0)
            try:
                await self._connect()
                delay = 0.2
                await self._send_until_lost()
                if self._taken_over:
                    wait = self._takeover_wait_s
                    _logger.warning("another connection took over", retry_in_s=wait)
            except MQTTConnectError as error:
                if error._code in _REFUSED:  # noqa: SLF001 - gmqtt shows the code nowhere else
                    wait = max(wait, 5.0)
                _logger.warning("broker refused", error=str(error), retry_in_s=round(wait, 1))
            except (OSError, TimeoutError, MQTTError) as error:
                _logger.warning("broker not reached", error=str(error), retry_in_s=round(wait, 1))
            finally:
                await self._disconnect()
            await asyncio.sleep(wait)

    async def _connect(self) -> None:
        self._lost, self._taken_over = asyncio.Event(), False
        self._acknowledged = _Acknowledgements()
        client = gmqtt.Client(self._device_id, persistent_storage=self._acknowledged)
        client.set_auth_credentials(self._device_id, self._secret)
        lost = self._lost

        async def note_loss(**_: object) -> None:
            lost.set()

        client._package_handler._reconnect_callback = note_loss  # noqa: SLF001 - as in consumer
        client.on_disconnect = self._note_reason
        try:
            async with asyncio.timeout(10):
                await client.connect(self._host, self._port, ssl=self._tls, keepalive=30)
        except BaseException:
            with suppress(Exception):
                await client.disconnect()
            raise
        self._client = client

    def _note_reason(self, _client: Any, packet: Any, *_: Any) -> None:
        if isinstance(packet, bytes) and packet[:1] == bytes([_TAKEN_OVER]):
            self._taken_over = True

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # closing a connection that is already gone
                await client.disconnect()

    async def _send_until_lost(self) -> None:
        sent = 0
        window = asyncio.Semaphore(_WINDOW)
        losing = asyncio.create_task(self._lost.wait())
        try:
            while not self._lost.is_set():
                fresh = [number for number in self._queue if number > sent]
                for number in fresh:
                    await self._or_lost(window.acquire(), losing)
                    if self._lost.is_set():
                        return
                    sent = number
                    self._send(number, window)
                if not fresh:
                    self._some.clear()
                    await self._or_lost(self._some.wait(), losing)
        finally:
            losing.cancel()

    async def _or_lost(self, work: Any, losing: asyncio.Task[Any]) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()

    def _send(self, number: int, window: asyncio.Semaphore) -> None:
        entry = self._queue.get(number)
        if entry is None or self._client is None:
            window.release()
            return
        suffix, payload, future = entry
        self._client.publish(f"paqett/v1/{self._device_id}/{suffix}", payload, qos=1)

        def settle(_: asyncio.Future[None]) -> None:
            window.release()
            self._queue.pop(number, None)
            if not future.done():
                future.set_result(None)

        self._acknowledged.newest.add_done_callback(settle)
