"""`/api/v1/devices/{id}/snippets`: how to send a first reading."""

from typing import Any

from litestar import Controller, Request, get
from litestar.datastructures import State
from litestar.params import FromPath

from paqett import devices, snippets
from paqett.app import Services
from paqett.lists import Page
from paqett.settings import Settings
from paqett.snippets import Place
from paqett.web.auth import needs
from paqett.web.devices import of_device


def place(settings: Settings) -> Place:
    """How devices reach us, as far as the settings tell."""
    broker = settings.broker
    tls = bool(broker.tls_port)
    port = broker.tls_port or broker.listen_port
    return Place(settings.devices_host, port, tls, settings.public_url)


class SnippetController(Controller):
    """For people who have just made a device."""

    path = "/api/v1/devices/{device_id:str}/snippets"
    tags = ["devices"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**needs("devices:read"))
    async def device_snippets(
        self, request: Request[Any, Any, State], device_id: FromPath[str]
    ) -> Page:
        """Lines for mosquitto_pub, curl, Python, Arduino, MicroPython, Home Assistant, the agent.

        Its secret was shown once and is stored nowhere: `YOUR_DEVICE_SECRET` stands in its place.
        """
        services: Services = request.app.state.services
        async with of_device(request, device_id) as (conn, account):
            device = await devices.get(conn, account, device_id)
        return Page(list(snippets.snippets(place(services.settings), device.id)), None)
