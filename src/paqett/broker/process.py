"""`paqett broker`: what stands between the database and the broker, whichever it is."""

import asyncio

from paqett.broker import emqx, mosquitto, rabbitmq
from paqett.settings import Settings

_KINDS = {"mosquitto": mosquitto.run, "rabbitmq": rabbitmq.run, "emqx": emqx.run}


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`; raises `ConfigurationError` for settings no broker can be run with."""
    await _KINDS[settings.broker.kind](settings, stop)
