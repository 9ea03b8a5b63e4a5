"""An EMQX server of the operator's, looked after by its HTTP API. Untested: see docs/brokers.md.

A device's id is its client id there. Who is connected is asked for now and then, so what comes and
goes in between is not recorded, and refusals are not.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import NoReturn
from urllib.parse import quote

from paqett.broker import rabbitmq
from paqett.broker.management import Management, Open
from paqett.settings import Settings

_EVERY_S = 10.0
_PAGE = 1000


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Look after the server until `stop`. Raises `ConfigurationError`."""
    async with Clients(settings) as clients:
        await rabbitmq.look_after(settings, stop, Server(settings, clients))


class Clients(Management):
    """EMQX's clients, asked and closed with a key of its API."""

    async def prepare(self) -> None:
        """Nothing: its configuration has it all."""

    async def connections(self) -> list[Open]:
        """Those that are open now, whosesoever they are."""
        found: list[Open] = []
        page, more = 1, True
        while more:
            values = {"conn_state": "connected", "page": page, "limit": _PAGE}
            answer = await self._told("/api/v5/clients", params=values)
            for client in answer["data"]:
                at = datetime.fromisoformat(client["connected_at"])
                user = str(client.get("username"))
                found.append(Open(client["clientid"], user, client.get("ip_address"), at))
            page, more = page + 1, bool(answer["meta"].get("hasnext"))
        return found

    async def close_users(self, users: Iterable[str]) -> None:
        """End the connection of each of these."""
        await self._delete(f"/api/v5/clients/{quote(user, safe='')}" for user in users)


class Server(rabbitmq.Server):
    """The same, but who is connected is looked up instead of heard of."""

    async def listen(self) -> NoReturn:
        """Have it looked up, again and again."""
        while True:
            self._listening, self._begun = True, False
            await asyncio.sleep(_EVERY_S)

    @property
    def watched(self) -> bool:
        """Whether the last look found an answer."""
        return self._begun
