"""`/hooks/broker/{secret}/…`: RabbitMQ or EMQX asks who may sign in, and what they may do.

RabbitMQ is answered in its own words, EMQX, which sends `Accept`, in JSON. Who may sign in stands
in the database; what a device may do follows from its id alone (`mqtt/access.py`).
"""

import hmac
import re
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.datastructures import State
from litestar.params import FromPath

from paqett import db, keys
from paqett.app import Services
from paqett.errors import NotFound
from paqett.mqtt import access
from paqett.web.fields import fields

_Request = Request[Any, Any, State]
_ASKED = ("user", "vhost", "resource", "topic")
# RabbitMQ's own for a session of a client id: what it is to receive, and its delayed last will
_QUEUE = re.compile(r"mqtt-(?:subscription-(?P<subscriber>.+)qos[01]|will-(?P<willing>.+))")
_AS_MQTT = str.maketrans("./*", "/.+")  # RabbitMQ's routing keys


# no guard: whoever knows the secret in the path is the broker
@post("/hooks/broker/{secret:str}/{what:str}", include_in_schema=False, status_code=200)
async def broker_asks(
    request: _Request, secret: FromPath[str], what: FromPath[str]
) -> Response[bytes]:
    """Whether the broker may let it happen. Raises `NotFound` for strangers."""
    services: Services = request.app.state.services
    known = services.settings.broker.auth_secret
    is_broker = known and hmac.compare_digest(secret.encode(), known.encode())
    if not is_broker or what not in _ASKED:
        raise NotFound("Not found.")
    asked = {name: values[-1] for name, values in (await fields(request)).items()}
    yes = await _may_sign_in(services, asked) if what == "user" else _may(what, asked)
    answer = "allow" if yes else "deny"
    if "application/json" in request.headers.get("accept", ""):
        return Response(msgspec.json.encode({"result": answer}), media_type=MediaType.JSON)
    return Response(answer.encode(), media_type=MediaType.TEXT)


async def _may_sign_in(services: Services, asked: dict[str, str]) -> bool:
    """By the same rules as Mosquitto's password file, and under no other device's client id."""
    device_id = asked.get("username", "")
    if not access.is_own_client_id(device_id, asked.get("client_id", "")):
        return False
    async with db.transaction(services.pool) as conn:
        return await keys.may_connect(conn, device_id, asked.get("password", ""))


def _may(what: str, asked: dict[str, str]) -> bool:
    device_id = asked.get("username", "")
    if access.DEVICE_ID.fullmatch(device_id) is None:
        return False
    if what == "vhost":
        return asked.get("vhost") == "/"
    if what == "resource":
        return _may_use(device_id, asked)
    return _may_reach(device_id, asked)


def _may_use(device_id: str, asked: dict[str, str]) -> bool:
    """MQTT's exchange, whose topics are asked for one by one, and the session's own queues."""
    kind, name, permission = (asked.get(key, "") for key in ("resource", "name", "permission"))
    if kind == "exchange":
        return name == "amq.topic" and permission in ("read", "write")
    queue = _QUEUE.fullmatch(name) if kind == "queue" else None
    if queue is None:
        return False
    return access.is_own_client_id(device_id, queue["subscriber"] or queue["willing"])


def _may_reach(device_id: str, asked: dict[str, str]) -> bool:
    if "routing_key" in asked:
        topic, permission = asked["routing_key"].translate(_AS_MQTT), asked.get("permission")
    else:
        topic = asked.get("topic", "")
        permission = {"publish": "write", "subscribe": "read"}.get(asked.get("action", ""))
    if permission == "read":
        return access.allowed(device_id, "read", topic)
    return permission == "write" and access.allowed(device_id, "write", topic)
