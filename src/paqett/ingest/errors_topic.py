"""Tell a device what was refused, on its `errors` topic: at most once a minute for each code."""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from paqett.readings.incoming import Refusals
from paqett.readings.timestamps import rfc3339

APART_S = 60.0
_MOST = 100_000  # (device, code) pairs remembered; beyond them the oldest may hear twice a minute


class Sender(Protocol):
    """What sends at QoS 0, while it is `connected`."""

    @property
    def connected(self) -> bool: ...

    def publish(self, topic: str, payload: bytes) -> None: ...


class Refused(msgspec.Struct, omit_defaults=True):
    """The message: `count` points between two times of receipt; `limit` is the plan's figure."""

    code: str
    count: int
    first_ts: str
    last_ts: str
    limit: int | None = None
    resets_at: str | None = None


class ErrorsTopic:
    """What comes within the minute, or while there is no broker, is added up and sent later."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        self._sender = sender
        self._clock = clock
        self._sent_at: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], Refusals] = {}

    def note(self, refusals: dict[tuple[str, str], Refusals]) -> None:
        """What one flush refused, by (device, code)."""
        for key, refused in refusals.items():
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.add(refused)
            elif len(self._waiting) < _MOST:
                self._waiting[key] = refused
        self.send_due()

    def send_due(self) -> None:
        """Send what has waited its minute."""
        if not self._sender.connected:
            return
        now = self._clock()
        for key in [
            key for key in self._waiting if now - self._sent_at.get(key, -APART_S) >= APART_S
        ]:
            device_id, code = key
            refused = self._waiting.pop(key)
            self._sent_at.pop(key, None)
            self._sent_at[key] = now
            self._sender.publish(f"paqett/v1/{device_id}/errors", _payload(code, refused))
        while self._sent_at:
            oldest = next(iter(self._sent_at))
            if len(self._sent_at) <= _MOST and now - self._sent_at[oldest] < APART_S:
                break
            del self._sent_at[oldest]


def _payload(code: str, refused: Refusals) -> bytes:
    return msgspec.json.encode(
        Refused(
            code,
            refused.points,
            rfc3339(refused.first_us),
            rfc3339(refused.last_us),
            refused.limit,
            None if refused.resets_us is None else rfc3339(refused.resets_us),
        )
    )
