"""Whether the broker keeps a device within its own topics: tried, not read."""

import asyncio
import logging
import secrets
from typing import Any

import gmqtt
import msgspec

from paqett.mqtt.clearing import BrokerAway, connected, subscribed
from paqett.mqtt.credentials import PROBE, probe_secret
from paqett.settings import Broker, Mqtt

_PATIENCE_S = 5.0
_ANY = "0.0.0.0", "::"  # noqa: S104 - what a listener may be bound to


class Tried(msgspec.Struct, frozen=True):
    """What a device that owns nothing could do beyond what it should.

    `nameless`: be let in without a name; `guessed`: with a wrong secret; `heard`: the topics of
    others that reached it; `wrote`: a message of its own reached another's topic. `hears_own` is
    what it should be able to.
    """

    nameless: bool
    guessed: bool
    hears_own: bool
    heard: list[str]
    wrote: bool


async def probe(mqtt: Mqtt, broker: Broker) -> Tried:
    """Try it all at the devices' listener. Raises `BrokerAway`."""
    host = "127.0.0.1" if broker.listen_host in _ANY else broker.listen_host
    device = msgspec.structs.replace(
        mqtt, host=host, port=broker.listen_port, tls=False,
        username=PROBE, password=probe_secret(mqtt.password),
    )  # fmt: skip
    mark = secrets.token_hex(8)
    other = f"{mark[:12]}.none"  # the prefix of no device
    async with (
        connected(mqtt, f"paqett-doctor-{mark}") as platform,
        connected(device, PROBE) as one,
    ):
        heard = await _listens(platform, one, other, mark.encode())
        wrote = await _writes(platform, one, other, mark.encode())
    own = f"paqett/v1/{PROBE}/errors"
    return Tried(
        nameless=await _let_in(msgspec.structs.replace(device, username="")),
        guessed=await _let_in(msgspec.structs.replace(device, password=mark)),
        hears_own=own in heard,
        heard=sorted(heard - {own}),
        wrote=wrote,
    )


async def _listens(platform: gmqtt.Client, one: gmqtt.Client, other: str, mark: bytes) -> set[str]:
    """The topics that reach the probe, which asks for everybody's."""
    own, foreign = f"paqett/v1/{PROBE}/errors", f"paqett/v1/{other}/errors"
    heard = _Heard(one)
    for topics in (["#"], ["paqett/v1/+/#"], [f"$share/{other}/paqett/v1/+/#"], [foreign, own]):
        await subscribed(one, [gmqtt.Subscription(topic, qos=1) for topic in topics])
    platform.publish(foreign, mark, qos=1)
    platform.publish(own, mark, qos=1)  # behind the other: once it is here, nothing is on its way
    await heard.wait_for(own)
    return set(heard.topics)


async def _writes(platform: gmqtt.Client, one: gmqtt.Client, other: str, mark: bytes) -> bool:
    """Whether what the probe publishes below another's prefix arrives."""
    foreign, control = f"paqett/v1/{other}/telemetry", f"paqett/v1/{other}/control"
    heard = _Heard(platform)
    await subscribed(platform, [gmqtt.Subscription(f"paqett/v1/{other}/#", qos=1)])
    one.publish(foreign, mark, qos=1)
    await subscribed(one, [gmqtt.Subscription(f"paqett/v1/{PROBE}/errors", qos=1)])
    platform.publish(control, mark, qos=1)
    await heard.wait_for(control)
    return foreign in heard.topics


async def _let_in(as_whom: Mqtt) -> bool:
    logging.getLogger("gmqtt").setLevel(logging.CRITICAL)  # a refusal is what is hoped for
    try:
        async with connected(as_whom, f"paqett-doctor-{secrets.token_hex(8)}"):
            return True
    except BrokerAway:
        return False
    finally:
        logging.getLogger("gmqtt").setLevel(logging.NOTSET)


class _Heard:
    """The topics of what a client receives from now on."""

    def __init__(self, client: gmqtt.Client) -> None:
        self.topics: list[str] = []
        self._more = asyncio.Event()
        client.on_message = self._note

    async def _note(self, _: Any, topic: str, *__: Any) -> int:
        self.topics.append(topic)
        self._more.set()
        return 0

    async def wait_for(self, topic: str) -> None:
        """Return when it came, or not in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S
        while topic not in self.topics and loop.time() < until:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), until - loop.time())
            except TimeoutError:
                return
