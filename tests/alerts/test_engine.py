"""The rules against a simple reference: random readings, gaps, kills, restarts, late data."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paqett.mqtt.credentials import new_device_id

LATE = 300
Event = tuple[str, int, float]  # reading or timer, time in s, value
Episode = tuple[int, int | None, int | None]  # since, fired, resolved, in s

DESCRIBED: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, level: value > level,
    ">=": lambda value, level: value >= level,
    "<": lambda value, level: value < level,
    "<=": lambda value, level: value <= level,
    "==": lambda value, level: value == level,
    "!=": lambda value, level: value != level,
}


def reference(events: list[Event], rule: dict[str, Any]) -> list[Episode]:
    """What the rule should have made of what was told it, in the order of `events`."""
    breaks = DESCRIBED[rule["operator"]]
    clear = rule["threshold"] if rule["clear"] is None else rule["clear"]
    found: list[Episode] = []
    bad_since: int | None = None
    fired: int | None = None
    for what, at, value in events:
        if fired is None and bad_since is not None and at >= bad_since + rule["for"]:
            fired = bad_since + rule["for"]
        if what == "timer":
            continue
        if fired is not None and bad_since is not None:
            if not breaks(value, clear):
                found.append((bad_since, fired, at))
                bad_since = fired = None
        elif not breaks(value, rule["threshold"]):
            bad_since = None
        elif bad_since is None:
            bad_since = at
            fired = at if rule["for"] == 0 else None
    return found if bad_since is None else [*found, (bad_since, fired, None)]


class Model:
    """What the platform has been told, as the reference needs it."""

    def __init__(self) -> None:
        self.newest = -1
        self.events: list[Event] = []

    def flush(self, readings: list[tuple[int, float]], now: int) -> None:
        first: dict[int, float] = {}
        for at, value in readings:
            first.setdefault(at, value)
        for at, value in sorted(first.items()):
            if at > self.newest:
                if at >= now - LATE:
                    self.events.append(("reading", min(at, now), value))
                self.newest = at


values = st.integers(0, 6)
offsets = st.one_of(st.just(0), st.integers(-20, 0), st.integers(-700, 500))
steps = st.one_of(
    st.tuples(
        st.just("send"), st.lists(st.tuples(offsets, values), min_size=1, max_size=5),
        st.integers(0, 1),
    ),
    st.tuples(st.just("send"), st.lists(st.tuples(st.just(0), values), min_size=1, max_size=1),
              st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 10, 60, 290, 400])),
    st.tuples(st.just("timer")),
    st.tuples(st.just("restart"), st.integers(0, 1)),
    st.tuples(st.just("kill"), st.lists(st.tuples(offsets, values), min_size=1, max_size=3),
              st.integers(0, 1)),
)  # fmt: skip


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    operator = draw(st.sampled_from(sorted(DESCRIBED)))
    threshold = draw(st.integers(1, 5))
    clear = None
    if operator in (">", ">="):
        clear = draw(st.one_of(st.none(), st.integers(0, threshold)))
    elif operator in ("<", "<="):
        clear = draw(st.one_of(st.none(), st.integers(threshold, 6)))
    seconds = draw(st.sampled_from([0, 0, 10, 60, 300]))
    return {"operator": operator, "threshold": threshold, "clear": clear, "for": seconds}


def _run(house: Any, wanted: list[dict[str, Any]], program: list[Any]) -> None:
    house.rows("DELETE FROM alert_rule")
    house.rows("DELETE FROM alert")
    house.rows("DELETE FROM notice")
    device = new_device_id()
    house.rows(
        "INSERT INTO device (id, account_id, thing_name, verifier) VALUES (%s, %s, %s, 'v')",
        device, house.account_id, device,
    )  # fmt: skip
    house.devices = [device]
    made = [
        house.rule(kind="threshold", metric="t", device_id=device if n else None, **rule)
        for n, rule in enumerate(wanted)
    ]
    house.later(2000)
    start, model = house.us // 1_000_000, Model()
    for step in program:
        now = house.us // 1_000_000
        if step[0] in ("send", "kill"):
            readings = [(now + offset, value) for offset, value in step[1]]
            items = [{"ts": at, "t": value} for at, value in readings]
            house.send(items, door=step[2], kill=step[0] == "kill")
            if step[0] == "send":
                model.flush(readings, now)
        elif step[0] == "wait":
            house.later(step[1])
        elif step[0] == "timer":
            house.tick()
            model.events.append(("timer", now, 0))
        else:
            house.restart(step[1])
    house.tick()
    model.events.append(("timer", house.us // 1_000_000, 0))
    transitions = 0
    for rule, described in zip(made, wanted, strict=True):
        rows = house.rows(
            "SELECT extract(epoch FROM since)::bigint, extract(epoch FROM fired_at)::bigint,"
            " extract(epoch FROM resolved_at)::bigint FROM alert WHERE rule_id = %s ORDER BY id",
            rule.id,
        )
        expected = reference(model.events, described)
        shown = [tuple(at and at - start for at in row) for row in rows]
        wished = [tuple(at and at - start for at in row) for row in expected]
        assert shown == wished, (described, program)
        transitions += sum((row[1] is not None) + (row[2] is not None) for row in expected)
    assert len(house.told()) == transitions
    house.tick()
    assert len(house.told()) == transitions


@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.lists(rules(), min_size=1, max_size=3), st.lists(steps, min_size=3, max_size=14))
def test_rules_do_what_the_reference_does_and_tell_each_transition_once(
    house: Any, wanted: list[dict[str, Any]], program: list[Any]
) -> None:
    _run(house, wanted, program)


@pytest.mark.prove
@settings(
    max_examples=1000, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.lists(rules(), min_size=1, max_size=4), st.lists(steps, min_size=3, max_size=30))
def test_rules_do_what_the_reference_does_at_length(
    house: Any, wanted: list[dict[str, Any]], program: list[Any]
) -> None:
    _run(house, wanted, program)
