"""What the log of Mosquitto 2.0 or 2.1 says of connections, as events.

A client id stands in the log as its owner wrote it, even where nobody has signed in. So a line
counts only as a whole, with phrases known beforehand: what merely contains one is no event.
"""

import errno
import os
import re

from paqett.broker.record import Event, Kind

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: "
_RUNNING = re.compile(_TIME + r"mosquitto version \S+ running")
# The username must be the id: on the platform's listener anybody may choose another's.
_CONNECTED = re.compile(
    _TIME + r"New client connected from (?P<ip>[0-9A-Fa-f.:]+):\d+"
    r" as (?P<client>[\w-]+) \(p\d, c\d, k\d+, u'(?P=client)'\)\.",
    re.ASCII,
)
_SIGNED_IN = re.compile(
    _TIME + r"New client connected from [0-9A-Fa-f.:]+:\d+"
    r" as (?P<client>[\w-]+) \(p\d, c\d, k\d+, u'[\w.-]+'\)\.",
    re.ASCII,
)
_CLIENT = re.compile(_TIME + r"Client (?P<client>[\w-]+|<unknown>) (?P<said>.+)", re.ASCII)
_BAD_SOCKET = re.compile(
    _TIME + r"Bad socket read/write on client (?P<client>[\w-]+): [^:]+", re.ASCII
)

# 2.1 names the address as well, and an id where 2.0 says <unknown>
_ENDED = re.compile(
    _TIME + r"Client (?P<client>[\w-]+) \[[0-9A-Fa-f.:]+:\d+\] disconnected(?:: (?P<why>.+))?\.",
    re.ASCII,
)
_BAD_SOCKET_ENDED = re.compile(
    _TIME + r"Client (?P<client>[\w-]+) \[[0-9A-Fa-f.:]+:\d+\] disconnected: "
    r"bad socket read/write: [^:]+",
    re.ASCII,
)

_SIGNED_OFF = "signed off, or cut off by the platform"
_SAID: dict[str, tuple[Kind, str]] = {
    "already connected, closing old connection.": ("taken_over", "another connection signed in"),
    "disconnected, not authorised.": ("refused", "unknown id or wrong secret"),
    "has exceeded timeout, disconnecting.": ("disconnected", "keep-alive timeout"),
    "closed its connection.": ("disconnected", "connection lost"),
    "disconnected.": ("disconnected", _SIGNED_OFF),
    "been disconnected by administrative action.": ("disconnected", "cut off by the platform"),
}
_SAID |= {
    f"disconnected due to {why}.": ("disconnected", why)
    for why in (
        "malformed packet", "protocol error", "oversize packet", "oversize payload",
        "out of memory", "QoS too high or retain not supported",
        "using not allowed feature (QoS too high, retain not supported, or bad AUTH method)",
    )
}  # fmt: skip
_SAID |= {
    f"disconnected: {os.strerror(number)}.": ("disconnected", os.strerror(number))
    for number in errno.errorcode
}
_WHY: dict[str | None, tuple[Kind, str]] = {
    None: ("disconnected", _SIGNED_OFF),
    "session taken over": ("taken_over", "another connection signed in"),
    "not authorised": ("refused", "unknown id or wrong secret"),
    "bad username or password": ("refused", "unknown id or wrong secret"),
    "exceeded timeout": ("disconnected", "keep-alive timeout"),
    "connection closed by client": ("disconnected", "connection lost"),
    "administrative action": ("disconnected", "cut off by the platform"),
}
_WHY |= {
    why: ("disconnected", why)
    for why in (
        "malformed packet", "protocol error", "oversize packet", "oversize payload",
        "out of memory", "receive maximum exceeded", "implementation specific error",
        "client identifier not valid", "server unavailable", "server busy", "client banned",
        "bad authentication method", "quota exceeded", "connection rate exceeded",
        "topic alias invalid",
        "used disallowed feature (QoS too high, retain not supported, or bad AUTH method)",
        *map(os.strerror, errno.errorcode),
    )
}  # fmt: skip


def is_running(line: str) -> bool:
    """Whether the line says that the broker serves; from here on it understands SIGHUP."""
    return _RUNNING.fullmatch(line) is not None


def is_signed_in(line: str, client_id: str) -> bool:
    """Whether the line says that the platform's client with this id has signed in."""
    found = _SIGNED_IN.fullmatch(line)
    return found is not None and found["client"] == client_id


def parse(line: str) -> Event | None:
    """The event a line tells of, or None."""
    if found := _CONNECTED.fullmatch(line):
        return Event("connected", found["client"], ip=found["ip"])
    if found := _BAD_SOCKET.fullmatch(line) or _BAD_SOCKET_ENDED.fullmatch(line):
        return Event("disconnected", found["client"], "connection lost")
    if (found := _ENDED.fullmatch(line)) and found["why"] in _WHY:
        kind, reason = _WHY[found["why"]]
        return Event(kind, found["client"], reason)
    found = _CLIENT.fullmatch(line)
    if found is None or found["said"] not in _SAID:
        return None
    kind, reason = _SAID[found["said"]]
    client = "" if found["client"] == "<unknown>" else found["client"]
    return Event(kind, client, reason)
