"""What RabbitMQ's event exchange says of connections, as our events.

Each comes as an empty MQTT message whose user properties tell of it. RabbitMQ tells who and from
where, not why a connection ended.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address

import msgspec

from paqett.broker.management import EVENTS, Open
from paqett.broker.record import Event
from paqett.mqtt.access import DEVICE_ID

TOPICS = tuple(event.replace(".", "/") for event in EVENTS)
_CREATED, _CLOSED, _SIGNED_IN, _REFUSED = TOPICS
CUT_OFF = "cut off by the platform"
_TAKEN_OVER = "another connection signed in"
_REFUSAL = "unknown id, wrong secret, or a client id that is not the device's"


class Heard(msgspec.Struct, frozen=True):
    """An event and when it was; connections that have to be closed for it."""

    event: Event
    at: datetime
    close: tuple[str, ...] = ()


class Watch:
    """Which connections each device has, and what a word of the broker's means for it."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, Open]] = {}
        self._signing_in: dict[str, str] = {}
        self._replaced: set[str] = set()
        self._cut_off: set[str] = set()

    def begin(self, listed: Iterable[Open], online: Iterable[str], now: datetime) -> list[Heard]:
        """Start from what is open now; `online` is what the record says, to be put right."""
        self.__init__()  # type: ignore[misc] # everything of before may have been missed
        for one in listed:
            if DEVICE_ID.fullmatch(one.user):
                self._open.setdefault(one.user, {})[one.name] = one
        gone = set(online) - self._open.keys()
        why = "gone when the broker was asked"
        heard = [Heard(Event("disconnected", device, why), now) for device in sorted(gone)]
        for device in sorted(self._open.keys() - set(online)):
            newest = list(self._open[device].values())[-1]
            heard.append(Heard(Event("connected", device, ip=newest.ip), newest.at or now))
        return heard

    @property
    def devices(self) -> set[str]:
        """Those with an open connection."""
        return set(self._open)

    def has(self, name: str) -> bool:
        """Whether a connection that was replaced is still open."""
        return name in self._replaced

    def will_cut_off(self, device: str) -> None:
        """Its connections are about to be closed by us."""
        self._cut_off |= self._open.get(device, {}).keys()

    def hear(self, topic: str, properties: Mapping[str, str]) -> list[Heard]:
        """What one message means: nothing, or an event or two."""
        one = _told(topic, properties)
        if one is None or one.at is None:
            return []
        if topic == _REFUSED:
            return [Heard(Event("refused", one.user, _REFUSAL, one.ip), one.at)]
        if topic == _SIGNED_IN:
            self._signing_in[one.user] = one.name
            return []
        return self._created(one, one.at) if topic == _CREATED else self._closed(one, one.at)

    def _created(self, one: Open, at: datetime) -> list[Heard]:
        mine = self._open.setdefault(one.user, {})
        self._signing_in.pop(one.user, None)
        if one.name in mine:
            return []
        # under another client id the broker lets both be
        older = tuple(mine.keys() - self._replaced)
        self._replaced.update(older)
        mine[one.name] = one
        connected = Heard(Event("connected", one.user, ip=one.ip), at)
        if not older:
            return [connected]
        return [Heard(Event("taken_over", one.user, _TAKEN_OVER), at, older), connected]

    def _closed(self, one: Open, at: datetime) -> list[Heard]:
        mine = self._open.get(one.user, {})
        if mine.pop(one.name, None) is None:
            return []
        if not mine:
            self._open.pop(one.user, None)
        cut_off = one.name in self._cut_off
        self._cut_off.discard(one.name)
        if one.name in self._replaced:
            self._replaced.discard(one.name)
            return []
        if (
            self._signing_in.get(one.user, one.name) != one.name
        ):  # who takes its place is heard next
            return [Heard(Event("taken_over", one.user, _TAKEN_OVER), at)]
        why = CUT_OFF if cut_off else "connection ended"
        return [Heard(Event("disconnected", one.user, why), at)]


def _told(topic: str, properties: Mapping[str, str]) -> Open | None:
    """Whom it is about; None for the platform's own, and for what is not understood."""
    user = properties.get("name" if topic.startswith("user/") else "user", "")
    name = properties.get("connection_name" if topic.startswith("user/") else "name", "")
    at = properties.get("timestamp_in_ms", "")
    if topic not in TOPICS or not name or DEVICE_ID.fullmatch(user) is None or not at.isdigit():
        return None
    return Open(name, user, _peer(name), datetime.fromtimestamp(int(at) / 1000, UTC))


def _peer(name: str) -> str | None:
    """The address in `203.0.113.7:40000 -> 192.0.2.1:1883`, of either family."""
    host = name.partition(" -> ")[0].rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
