"""What Mosquitto 2.0's log says of connections, as events."""

import re
from typing import Literal

import msgspec

Kind = Literal["connected", "disconnected", "taken_over", "refused"]


class Event(msgspec.Struct, frozen=True):
    """`client` is the device's id, "" where the broker does not tell; `ip` only at connects."""

    kind: Kind
    client: str
    reason: str | None = None
    ip: str | None = None


_CONNECTED = re.compile(r"New client connected from (?P<ip>\S+):\d+ as (?P<client>\S+) \(")
_TAKEN_OVER = re.compile(r"Client (?P<client>\S+) already connected, closing old connection")
_REFUSED = re.compile(r"Client (?P<client>\S+) disconnected, not authorised")
_TIMEOUT = re.compile(r"Client (?P<client>\S+) has exceeded timeout, disconnecting")
_CLOSED = re.compile(r"Client (?P<client>\S+) closed its connection")
_DUE_TO = re.compile(r"Client (?P<client>\S+) disconnected due to (?P<reason>.+?)\.?$")
_LEFT = re.compile(r"Client (?P<client>\S+) disconnected\.?$")


def parse(line: str) -> Event | None:
    """The event a line tells of, or None."""
    if found := _CONNECTED.search(line):
        return Event("connected", found["client"], ip=found["ip"])
    if found := _TAKEN_OVER.search(line):
        return Event("taken_over", found["client"], "another connection signed in")
    if found := _REFUSED.search(line):
        client = "" if found["client"] == "<unknown>" else found["client"]
        return Event("refused", client, "unknown id or wrong secret")
    for pattern, reason in ((_TIMEOUT, "keep-alive timeout"), (_CLOSED, "connection lost")):
        if found := pattern.search(line):
            return Event("disconnected", found["client"], reason)
    if found := _DUE_TO.search(line):
        return Event("disconnected", found["client"], found["reason"])
    if found := _LEFT.search(line):
        return Event("disconnected", found["client"], "signed off, or cut off by the platform")
    return None
