"""What a device may do at a broker: the one place where the rules stand, whichever broker it is.

Rendered into Mosquitto's access list; answered over HTTP where a broker asks.
"""

import re
from typing import Literal

Permission = Literal["read", "write"]
PREFIX = "paqett/v1/"
RULES: dict[Permission, tuple[str, ...]] = {
    "write": (PREFIX + "{device}/#",),
    "read": (PREFIX + "{device}/errors",),
}
DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
# 128 random bits as RabbitMQ (base64) and clients (hexadecimal) make them up, so that nobody can
# guess another's: a name of 22 letters that a person thought of is hardly ever of this form
_RANDOM = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_-]{21}[AQgw]|[0-9a-f]{32}")


def patterns(permission: Permission, device: str) -> list[str]:
    """The topic filters that `device`, an id or a broker's word for it, may use."""
    return [rule.format(device=device) for rule in RULES[permission]]


def allowed(device_id: str, permission: Permission, topic: str) -> bool:
    """Whether the device may publish to a topic, or subscribe to a filter, whole."""
    if DEVICE_ID.fullmatch(device_id) is None:
        return False
    return any(_covers(pattern, topic) for pattern in patterns(permission, device_id))


def _covers(pattern: str, topic: str) -> bool:
    head, deep, _ = pattern.partition("/#")
    return topic == head or bool(deep and topic.startswith(head + "/"))


def is_own_client_id(device_id: str, client_id: str) -> bool:
    """Whether nobody else's connection or session can go by this client id.

    To be asked where a broker takes client ids as they come: it ends the connection that has the
    same one, whosesoever it is.
    """
    return client_id in ("", device_id) or bool(_RANDOM.fullmatch(client_id))
