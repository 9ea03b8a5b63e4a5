"""What the platform subscribes to, and what the broker answers."""

import asyncio
from typing import Any

import gmqtt

from paqett.errors import PaqettError


class ConnectionRefusedByBroker(PaqettError):
    """The broker did not take our credentials or our subscriptions."""


def subscription(topic: str) -> gmqtt.Subscription:
    """QoS 1, nothing retained, nothing of our own; No Local is an error with $share (§3.8.3.1)."""
    alone = not topic.startswith("$share/")
    # what the broker counted while nobody was there is retained, and wanted
    retained = 0 if topic.startswith("$SYS/") else 2
    return gmqtt.Subscription(topic, qos=1, no_local=alone, retain_handling_options=retained)


def answer(client: gmqtt.Client) -> asyncio.Future[tuple[int, ...]]:
    """The codes of the next SUBACK."""
    answered: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

    def note(_client: Any, _mid: int, codes: tuple[int, ...], _properties: Any) -> None:
        if not answered.done():
            answered.set_result(codes)

    client.on_subscribe = note
    return answered


def check_granted(codes: tuple[int, ...]) -> None:
    """Raises `ConnectionRefusedByBroker` where a subscription was refused (MQTT 5 §3.9.3)."""
    if any(code >= 0x80 for code in codes):
        raise ConnectionRefusedByBroker(f"the broker refused a subscription: {codes}")
