"""The management API of a RabbitMQ server: its connections, and what we need set up there."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from paqett.errors import PaqettError
from paqett.settings import Settings

EVENTS = (
    "connection.created", "connection.closed",
    "user.authentication.success", "user.authentication.failure",
)  # fmt: skip
_TIMEOUT_S = 10.0
_AT_A_TIME = 20
_VHOST = quote("/", safe="")
# By how a queue is named follows whose session it is: the patterns of access.is_own_client_id. A
# device may leave sessions behind, and a queue costs memory whether it is used or not.
_POLICIES: dict[str, dict[str, Any]] = {
    # One that gave a message back 20 times would drop it: ingest may be killed more often.
    "paqett": {
        "pattern": "^mqtt-subscription-paqett-ingest-",
        "definition": {"delivery-limit": -1},
        "apply-to": "quorum_queues",
    },
    "paqett-devices": {
        "pattern": "^mqtt-subscription-[A-Za-z0-9_-]{1,16}qos[01]$",
        "definition": {"expires": 86_400_000, "max-length": 1000},
        "apply-to": "queues",
    },
    "paqett-passing": {
        "pattern": "^mqtt-(will-|subscription-([A-Za-z0-9_-]{22}|[0-9a-f]{32})qos[01]$)",
        "definition": {"expires": 60_000, "max-length": 1000},
        "apply-to": "queues",
    },
}


class ManagementAway(PaqettError):
    """The broker's management API does not answer as it should: try again later."""


class Open(msgspec.Struct, frozen=True):
    """One connection of a device: `name` is the broker's for it; no `at` where it did not tell."""

    name: str
    user: str
    ip: str | None = None
    at: datetime | None = None


class Management:
    """A client of it, to be entered. Every method raises `ManagementAway`."""

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        broker, mqtt = settings.broker, settings.mqtt
        who = (broker.management_key, broker.management_secret)
        self._client = httpx.AsyncClient(
            base_url=broker.management_url.rstrip("/"),
            auth=who if broker.management_key else (mqtt.username, mqtt.password),
            timeout=_TIMEOUT_S, transport=transport,
        )  # fmt: skip
        self._room = asyncio.Semaphore(_AT_A_TIME)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def prepare(self) -> None:
        """Events can be subscribed to; ingest's messages stay, devices' sessions go."""
        for name, policy in _POLICIES.items():
            await self._ask("PUT", f"/api/policies/{_VHOST}/{name}", json=policy)
        bindings = f"/api/bindings/{_VHOST}/e/amq.rabbitmq.event/e/amq.topic"
        for event in EVENTS:
            await self._ask("POST", bindings, json={"routing_key": event})

    async def connections(self) -> list[Open]:
        """Those that are open now, whosesoever they are."""
        return [_open(found) for found in await self._told("/api/connections")]

    async def close_users(self, users: Iterable[str]) -> None:
        """End every connection of these."""
        await self._delete(f"/api/connections/username/{quote(user, safe='')}" for user in users)

    async def close(self, names: Iterable[str]) -> None:
        """End these connections; one that has ended is none."""
        await self._delete(f"/api/connections/{quote(name, safe='')}" for name in names)

    async def _delete(self, paths: Iterable[str]) -> None:
        await asyncio.gather(*(self._ask("DELETE", path) for path in paths))

    async def _told(self, path: str, **more: Any) -> Any:
        answer = await self._ask("GET", path, **more)
        try:
            return answer.json()
        except ValueError:
            raise ManagementAway("broker.management_url: what answers speaks no JSON") from None

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            async with self._room:
                answer = await self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise ManagementAway(f"broker.management_url: {type(error).__name__}") from None
        if not (answer.is_success or (method == "DELETE" and answer.status_code == 404)):
            raise ManagementAway(
                f"broker.management_url: {method} is answered {answer.status_code}"
            )
        return answer


def _open(found: Mapping[str, Any]) -> Open:
    ms = found.get("connected_at")
    at = datetime.fromtimestamp(ms / 1000, UTC) if isinstance(ms, int) else None
    return Open(str(found.get("name")), str(found.get("user")), found.get("peer_host"), at)
