"""What a broker keeps of devices that are to go: retained messages and sessions."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import gmqtt
from gmqtt.mqtt.handler import MQTTConnectError

from paqett.errors import PaqettError
from paqett.mqtt.closing import close_client
from paqett.mqtt.connection import tls_of
from paqett.settings import Mqtt

KEEPALIVE_S = 20
_CONNECT_S = 10.0
_AT_A_TIME = 20
_TOPICS = 200  # of one SUBSCRIBE
_MOST_PASSES = 20


class BrokerAway(PaqettError):
    """The broker does not answer, or keeps what it was told to forget: try again later."""


async def clear_retained(settings: Mqtt, device_ids: Sequence[str]) -> int:
    """Clear every retained message below the devices' prefixes; how many there were.

    Looks again until there is none. Raises `BrokerAway`.
    """
    cleared = 0
    for start in range(0, len(device_ids), _TOPICS):
        some = device_ids[start : start + _TOPICS]
        for _ in range(_MOST_PASSES):
            topics = await _retained(settings, some)
            if not topics:
                break
            cleared += len(topics)
        else:
            raise BrokerAway("the broker keeps retained messages that were cleared")
    return cleared


async def forget_sessions(settings: Mqtt, device_ids: Sequence[str]) -> None:
    """End the devices' connections and stored sessions, by taking them over with clean ones.

    Raises `BrokerAway`.
    """
    room = asyncio.Semaphore(_AT_A_TIME)

    async def forget(device_id: str) -> None:
        async with room, connected(settings, device_id):
            pass

    await asyncio.gather(*(forget(device_id) for device_id in device_ids))


async def _retained(settings: Mqtt, device_ids: Sequence[str]) -> set[str]:
    """The topics that were found retained, and are cleared now."""
    found: set[str] = set()

    async def note(
        _: Any, topic: str, payload: bytes, _qos: int, properties: dict[str, Any]
    ) -> int:
        if properties.get("retain") and payload:
            found.add(topic)
        return 0

    async with connected(settings, f"paqett-clear-{secrets.token_hex(8)}") as client:
        client.on_message = note
        topics = [gmqtt.Subscription(f"paqett/v1/{one}/#", qos=1) for one in device_ids]
        await subscribed(client, topics)
        # what is retained stands before the answer to whatever is asked next
        await subscribed(client, topics[:1])
        for topic in sorted(found):
            client.publish(topic, b"", qos=1, retain=True)
        await subscribed(client, topics[:1])  # in order: these have been taken
    return found


@asynccontextmanager
async def connected(settings: Mqtt, client_id: str) -> AsyncIterator[gmqtt.Client]:
    """A user of the broker under a client id, with a session that ends with it.

    Raises `BrokerAway` where it cannot be reached or does not let it in.
    """
    client = gmqtt.Client(client_id, clean_session=True)
    if settings.username:
        client.set_auth_credentials(settings.username, settings.password)
    client.set_config({"reconnect_retries": 0})
    try:
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    settings.host,
                    settings.port,
                    ssl=tls_of(settings) or False,
                    keepalive=KEEPALIVE_S,
                )
        except MQTTConnectError:
            raise BrokerAway("the broker refused the sign-in") from None
        except Exception as error:  # gmqtt raises what it likes, and some of it says nothing
            raise BrokerAway(f"the broker was not reached: {type(error).__name__}") from None
        yield client
    finally:
        await close_client(client)


async def subscribed(client: gmqtt.Client, topics: list[gmqtt.Subscription]) -> None:
    """Return when the broker has answered, and so has taken whatever was sent before."""
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(*_: Any) -> None:
        if not answered.done():
            answered.set_result(None)

    client.on_subscribe = note
    client.subscribe(topics)
    try:
        async with asyncio.timeout(_CONNECT_S):
            await answered
    except TimeoutError:
        raise BrokerAway("the broker does not answer a subscription") from None


async def subscribed_to(client: gmqtt.Client, topics: Sequence[str]) -> None:
    """The same at QoS 1, for whoever knows nothing of gmqtt. Raises `BrokerAway`."""
    await subscribed(client, [gmqtt.Subscription(topic, qos=1) for topic in topics])
