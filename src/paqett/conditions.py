"""What a threshold rule does with one reading after the other: pure, without clock or database.

    (none) → pending → firing → resolved

A reading beyond the threshold begins `pending`, or `firing` where the rule has no `for`. Pending
ends without a trace at the first reading that is not beyond it, and fires when `for` has passed
since its first one, whoever notices. Firing ends at a reading on the good side of the clear level.
Times are µs since 1970.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

State = Literal["pending", "firing", "resolved"]
Operator = Literal[">", ">=", "<", "<=", "==", "!="]
OPERATORS: Final[dict[str, tuple[bool, bool, bool]]] = {
    ">": (False, False, True),
    ">=": (False, True, True),
    "<": (True, False, False),
    "<=": (True, True, False),
    "==": (False, True, False),
    "!=": (True, False, True),
}
"""Whether a value below, at and above the level is beyond it."""
IN_WORDS: Final[dict[Operator, str]] = {
    ">": "above",
    ">=": "at or above",
    "<": "below",
    "<=": "at or below",
    "==": "exactly",
    "!=": "anything but",
}


class Condition(msgspec.Struct, frozen=True):
    """`operator` and `threshold` say what is beyond, `clear` where it is good again."""

    operator: str
    threshold: float
    clear: float
    for_us: int

    def beyond(self, value: float) -> bool:
        """Whether `value` breaks the threshold."""
        return _holds(self.operator, value, self.threshold)

    def cleared(self, value: float) -> bool:
        """Whether `value` is on the good side of the clear level."""
        return not _holds(self.operator, value, self.clear)


def _holds(operator: str, value: float, level: float) -> bool:
    below, at, above = OPERATORS[operator]
    return (below and value < level) or (at and value == level) or (above and value > level)


class Episode(msgspec.Struct):
    """One alert from its first reading on; `id` is its row's, None where it has none yet.

    `value` is the reading's that began it or made it fire. `lag_us` is how long before its flush
    that reading was received.
    """

    since_us: int
    state: State = "pending"
    value: float = 0.0
    fired_us: int = 0
    resolved_us: int = 0
    resolved_value: float | None = None
    received_us: int = 0
    id: int | None = None

    def fire(self, at_us: int) -> None:
        """Its time has come."""
        self.state, self.fired_us = "firing", at_us

    def due_us(self, condition: Condition) -> int:
        """When it fires, if nothing ends it before."""
        return self.since_us + condition.for_us


class Reading(msgspec.Struct, frozen=True):
    """`time_us` orders readings; `at_us` is when it counts, never later than its receipt."""

    time_us: int
    at_us: int
    value: float
    received_us: int = 0


def follow(
    condition: Condition, open_one: Episode | None, readings: Iterable[Reading]
) -> tuple[list[Episode], Episode | None, bool]:
    """Readings in the order of their times: the episodes that ended, the open one, and whether
    `open_one` itself was pending and is gone without a trace.
    """
    ended: list[Episode] = []
    dropped, given = False, open_one
    for reading in readings:
        if open_one is None:
            open_one = _begin(condition, reading)
            continue
        if open_one.state == "pending":
            if reading.at_us >= open_one.due_us(condition):
                open_one.fire(open_one.due_us(condition))
            elif not condition.beyond(reading.value):
                dropped = dropped or open_one is given
                open_one = None
                continue
            else:
                continue
        if condition.cleared(reading.value):
            open_one.state, open_one.resolved_us = "resolved", reading.at_us
            open_one.resolved_value = reading.value
            ended.append(open_one)
            open_one = None
    return ended, open_one, dropped


def _begin(condition: Condition, reading: Reading) -> Episode | None:
    if not condition.beyond(reading.value):
        return None
    begun = Episode(reading.at_us, value=reading.value, received_us=reading.received_us)
    if not condition.for_us:
        begun.fire(reading.at_us)
    return begun
