"""The same readings in the forms that each of them understands.

A device's packets are all of the same length, as the publisher wants them (`paqett.local.flood`).
Where a message holds one value it is the first metric's.
"""

from collections.abc import Callable

from paqett.local.packets import publish_packet
from paqett.local.shape import STEP_US, Packets, Shape

METRIC = "temperature"
Written = tuple[str, bytes]  # topic, payload


def collectd(device: str, number: int, time_us: int) -> Written:
    """`epoch:value`; the topic is host/plugin/type-instance."""
    value = 10 + number % 100 / 10
    seconds, rest = divmod(time_us, 1_000_000)
    return f"collectd/{device}/mqtt/gauge-{METRIC}", b"%d.%06d:%.1f" % (seconds, rest, value)


def esphome(device: str, number: int, _time_us: int) -> Written:
    """A bare value, which is the message's number so that each can be told apart.

    The sign is there because what JSON can read is thrown away by version 0.3.0.
    """
    return f"{device}/sensor/{METRIC}/state", b"+%08d" % number


FORMS: dict[str, Callable[[str, int, int], Written]] = {"collectd": collectd, "esphome": esphome}
PAQETT = "paqett"  # as `paqett.local.shape` writes them


class OtherPackets(Packets):
    """Packets of a form that is not ours."""

    form = ""

    def __init__(self, device_id: str, shape: Shape, messages: int, start_us: int, qos: int):
        del shape
        packets = [
            self._packet(device_id, number, start_us + number * STEP_US, qos)
            for number in range(messages)
        ]
        self.size = len(packets[0])
        self.data = bytearray(b"".join(packets))
        if len(self.data) != self.size * messages:
            raise ValueError("the packets differ in length")

    def _packet(self, device: str, number: int, time_us: int, qos: int) -> bytes:
        topic, payload = FORMS[self.form](device, number, time_us)
        return publish_packet(topic, payload, qos, number % 65_535 + 1)
