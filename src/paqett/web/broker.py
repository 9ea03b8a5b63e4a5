"""`/hooks/broker/{secret}/…`: RabbitMQ or EMQX asks who may sign in, and what they may do.

RabbitMQ is answered in its own words, EMQX, which sends `Accept`, in JSON. Who may sign in stands
in the database; what a device may do follows from its id alone (`mqtt/access.py`). Whatever is not
understood, and every error, is no for both of them.
"""

import asyncio
import hmac
import re
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.datastructures import State
from litestar.params import FromPath

from paqett import db, keys
from paqett.app import Services
from paqett.errors import Invalid, NotFound, Unavailable
from paqett.mqtt import access
from paqett.settings import SHORTEST_SECRET
from paqett.web.fields import fields

_Request = Request[Any, Any, State]
_ASKED = ("user", "vhost", "resource", "topic")
# RabbitMQ's own for a session of a client id: what it is to receive. Not its delayed last will, a
# queue that stays when the will is refused, as it is.
_QUEUE = re.compile(r"mqtt-subscription-(?P<client>.+)qos[01]")
_AS_MQTT = str.maketrans("./*", "/.+")  # RabbitMQ's routing keys
_PATIENCE_S = 2.0  # for the database; who is told no tries again
_AWAY_S = 1.0
_SESSIONS, _SESSIONS_IN_S = 10, 60.0  # under random client ids: each may be a queue on disk
_MOST_DEVICES = 10_000


class Judge:
    """What an API process answers its broker.

    Sign-ins take half of its connections at most, so that a storm of them leaves people the rest,
    and are refused at once while the database is away.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._room = asyncio.Semaphore(max(1, services.settings.database.pool_size // 2))
        self._not_before = 0.0
        self._begun: dict[str, dict[str, float]] = {}

    async def may_sign_in(self, device_id: str, client_id: str, secret: str) -> bool:
        """By the same rules as Mosquitto's password file, and under no other device's client id.

        Raises `Unavailable` while the database is away or takes too long.
        """
        if access.DEVICE_ID.fullmatch(device_id) is None:
            return False
        if not access.is_own_client_id(device_id, client_id):
            return False
        async with self._room:
            if asyncio.get_running_loop().time() < self._not_before:
                raise Unavailable("The database cannot be reached; try again.")
            try:
                async with (
                    asyncio.timeout(_PATIENCE_S),
                    db.transaction(self._services.pool) as conn,
                ):
                    return await keys.may_connect(conn, device_id, secret)
            except (TimeoutError, Unavailable) as error:
                self._not_before = asyncio.get_running_loop().time() + _AWAY_S
                raise Unavailable("The database cannot be reached; try again.") from error

    def may(self, what: str, asked: dict[str, str]) -> bool:
        """Whether a device that has signed in may use the host, a resource or a topic."""
        device_id = asked.get("username", "")
        if access.DEVICE_ID.fullmatch(device_id) is None:
            return False
        if what == "vhost":
            return asked.get("vhost") == "/"
        if what == "resource":
            return self._may_use(device_id, asked)
        return _may_reach(device_id, asked)

    def _may_use(self, device_id: str, asked: dict[str, str]) -> bool:
        """MQTT's exchange, whose topics are asked for one by one, and the session's own queues."""
        kind, name, permission = (asked.get(key, "") for key in ("resource", "name", "permission"))
        if kind == "exchange":
            return name == "amq.topic" and permission in ("read", "write")
        queue = _QUEUE.fullmatch(name) if kind == "queue" else None
        if queue is None or not access.is_own_client_id(device_id, queue["client"]):
            return False
        own = permission != "configure" or queue["client"] == device_id
        return own or self._has_room(device_id, queue["client"])

    def _has_room(self, device_id: str, client_id: str) -> bool:
        """Whether the device may begin one more session of a name that it makes up."""
        now = asyncio.get_running_loop().time()
        begun = self._begun.pop(device_id, {})
        begun = {name: at for name, at in begun.items() if now - at < _SESSIONS_IN_S}
        fits = client_id in begun or len(begun) < _SESSIONS
        if fits:
            begun[client_id] = now
        self._begun[device_id] = begun  # the latest comes last, so the first is the oldest
        if len(self._begun) > _MOST_DEVICES:
            del self._begun[next(iter(self._begun))]
        return fits


# no guard: whoever knows the secret in the path is the broker
@post("/hooks/broker/{secret:str}/{what:str}", include_in_schema=False, status_code=200)
async def broker_asks(
    request: _Request, secret: FromPath[str], what: FromPath[str]
) -> Response[bytes]:
    """Whether the broker may let it happen. Raises `NotFound` for strangers."""
    services: Services = request.app.state.services
    known = services.settings.broker.auth_secret
    is_broker = hmac.compare_digest(secret.encode(), known.encode())
    is_broker = is_broker and len(known) >= SHORTEST_SECRET
    if not is_broker or what not in _ASKED:
        raise NotFound("Not found.")
    asked = _each_once(await fields(request))
    as_json = "application/json" in request.headers.get("accept", "")
    judge: Judge = request.app.state.broker
    yes = await _signs_in(judge, asked, as_json) if what == "user" else judge.may(what, asked)
    answer = "allow" if yes else "deny"
    if as_json:
        return Response(msgspec.json.encode({"result": answer}), media_type=MediaType.JSON)
    return Response(answer.encode(), media_type=MediaType.TEXT)


def _each_once(found: dict[str, list[str]]) -> dict[str, str]:
    """Raises `Invalid` for a field that is there twice: which of them would the broker mean?"""
    for name, values in found.items():
        if len(values) > 1:
            raise Invalid("A field is there more than once.", field=name)
    return {name: values[0] for name, values in found.items()}


async def _signs_in(judge: Judge, asked: dict[str, str], as_json: bool) -> bool:
    """Over MQTT alone: RabbitMQ's other doors name no client id. EMQX makes it the device's."""
    if "client_id" not in asked and not as_json:
        return False
    names = ("username", "client_id", "password")
    return await judge.may_sign_in(*(asked.get(name, "") for name in names))


def _may_reach(device_id: str, asked: dict[str, str]) -> bool:
    if "routing_key" in asked:
        topic, permission = asked["routing_key"].translate(_AS_MQTT), asked.get("permission")
    else:
        topic = asked.get("topic", "")
        permission = {"publish": "write", "subscribe": "read"}.get(asked.get("action", ""))
    if permission == "read":
        return access.allowed(device_id, "read", topic)
    return permission == "write" and access.allowed(device_id, "write", topic)
