"""What a device hears of its refusals: once a minute for each code, and every point of them."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paqett.ingest import errors_topic
from paqett.ingest.errors_topic import ErrorsTopic
from paqett.readings.incoming import Refusals

NOW_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
MINUTE_S = 60.0


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """Keeps what is sent, with its second; says nothing while it is not connected."""

    def __init__(self, clock: Clock) -> None:
        self.connected = True
        self._clock = clock
        self.sent: list[tuple[float, str, dict[str, Any]]] = []

    def publish(self, topic: str, payload: bytes) -> None:
        assert self.connected, "it would have been lost"
        self.sent.append((self._clock.now, topic, json.loads(payload)))

    def counts(self) -> list[tuple[str, str, int]]:
        return [(topic.split("/")[2], body["code"], body["count"]) for _, topic, body in self.sent]


class Told(ErrorsTopic):
    """The topic with a clock and a sender of the test's own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sender = Sender(self.clock)
        super().__init__(self.sender, self.clock)

    def refuse(self, device: str, code: str, points: int = 1, at_us: int = NOW_US) -> None:
        self.note({(device, code): Refusals(points, at_us, at_us)})


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_first_refusal_is_told_at_once_on_the_devices_own_topic(told) -> None:
    told.note({("d1", "bad_json"): Refusals(3, NOW_US, NOW_US + 1_500_000)})
    assert told.sender.sent == [
        (
            1000.0,
            "paqett/v1/d1/errors",
            {
                "code": "bad_json",
                "count": 3,
                "first_ts": "2026-01-01T00:00:00Z",
                "last_ts": "2026-01-01T00:00:01.500000Z",
            },
        )
    ]


def test_what_follows_within_the_minute_is_added_up_and_told_at_its_end(told) -> None:
    told.refuse("d1", "bad_json")
    for second in range(1, 59):
        told.clock.now += 1
        told.refuse("d1", "bad_json", 2, NOW_US + second * 1_000_000)
    assert len(told.sender.sent) == 1
    told.clock.now += 1.9
    told.send_due()
    assert len(told.sender.sent) == 1  # 59.9 s
    told.clock.now += 0.2
    told.send_due()
    assert told.sender.sent[1][2] == {
        "code": "bad_json",
        "count": 116,
        "first_ts": "2026-01-01T00:00:01Z",
        "last_ts": "2026-01-01T00:00:58Z",
    }
    told.clock.now += 600
    told.send_due()
    assert len(told.sender.sent) == 2  # nothing happened, nothing is said


def test_codes_and_devices_have_their_own_minutes(told) -> None:
    told.refuse("d1", "bad_json")
    told.clock.now += 30
    told.refuse("d1", "bad_ts")
    told.refuse("d2", "bad_json")
    told.refuse("d1", "bad_json", 5)
    assert told.sender.counts() == [
        ("d1", "bad_json", 1),
        ("d1", "bad_ts", 1),
        ("d2", "bad_json", 1),
    ]
    told.clock.now += 30
    told.send_due()
    assert told.sender.counts()[3:] == [("d1", "bad_json", 5)]


def test_the_limit_and_its_end_are_told_where_they_are_known(told) -> None:
    told.note(
        {
            ("d", "quota_exceeded"): Refusals(1, NOW_US, NOW_US, 250_000, NOW_US + 86_400_000_000),
            ("d", "rate_limited"): Refusals(1, NOW_US, NOW_US, 1),
            ("d", "bad_ts"): Refusals(1, NOW_US, NOW_US),
        }
    )
    said = {body["code"]: body for _, _, body in told.sender.sent}
    assert said["quota_exceeded"]["limit"] == 250_000
    assert said["quota_exceeded"]["resets_at"] == "2026-01-02T00:00:00Z"
    assert (said["rate_limited"]["limit"], "resets_at" in said["rate_limited"]) == (1, False)
    assert said["bad_ts"].keys() == {"code", "count", "first_ts", "last_ts"}


def test_of_limits_that_change_meanwhile_the_last_is_told(told) -> None:
    day_us = 86_400_000_000
    told.sender.connected = False
    told.note({("d", "quota_exceeded"): Refusals(1, NOW_US, NOW_US, 10, NOW_US + day_us)})
    told.note({("d", "quota_exceeded"): Refusals(1, NOW_US, NOW_US, 20, NOW_US + 2 * day_us)})
    told.sender.connected = True
    told.send_due()
    body = told.sender.sent[0][2]
    assert (body["count"], body["limit"], body["resets_at"]) == (2, 20, "2026-01-03T00:00:00Z")


def test_nothing_is_lost_while_there_is_no_broker(told) -> None:
    told.sender.connected = False
    for number in range(500):
        told.clock.now += 1
        told.refuse(f"d{number % 3}", "bad_json", 2)
    told.sender.connected = True
    told.send_due()
    assert sorted(told.sender.counts()) == [
        ("d0", "bad_json", 334),
        ("d1", "bad_json", 334),
        ("d2", "bad_json", 332),
    ]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 100)),
        st.tuples(
            st.just("refuse"),
            st.sampled_from("ab"),
            st.sampled_from(["bad_ts", "bad_json"]),
            st.integers(1, 9),
        ),
        st.tuples(st.just("connected"), st.booleans()),
        st.tuples(st.just("look")),
    ),
    max_size=60,
)


@given(steps)
def test_every_point_is_told_once_and_no_pair_twice_a_minute_whatever_happens(script) -> None:
    told = Told()
    refused: dict[tuple[str, str], int] = {}
    for step, *values in script:
        if step == "pass":
            told.clock.now += values[0]
        elif step == "refuse":
            device, code, points = values
            told.refuse(device, code, points)
            refused[device, code] = refused.get((device, code), 0) + points
        elif step == "connected":
            told.sender.connected = values[0]
        else:
            told.send_due()
    told.sender.connected = True
    told.clock.now += MINUTE_S
    told.send_due()
    heard: dict[tuple[str, str], int] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for (device, code, count), (at, *_) in zip(told.sender.counts(), told.sender.sent, strict=True):
        heard[device, code] = heard.get((device, code), 0) + count
        times.setdefault((device, code), []).append(at)
    assert heard == refused
    for moments in times.values():
        assert all(b - a >= MINUTE_S for a, b in pairwise(moments))


def test_memory_is_bounded_connected_or_not(told, monkeypatch) -> None:
    monkeypatch.setattr(errors_topic, "_MOST", 100)
    for number in range(1000):
        told.refuse(f"d{number}", "bad_json")
    assert len(told.sender.sent) == 1000
    assert len(told._sent_at) <= 100
    told.sender.connected = False
    for number in range(1000):
        told.refuse(f"e{number}", "bad_json")
        told.refuse("e0", "bad_json")
    assert len(told._waiting) <= 100
    told.sender.connected = True
    told.send_due()
    assert ("e0", "bad_json", 1001) in told.sender.counts()
    assert len(told._sent_at) <= 100
    assert not told._waiting


def test_what_was_told_long_ago_is_forgotten(told) -> None:
    for number in range(1000):
        told.refuse(f"d{number}", "bad_json")
    told.clock.now += MINUTE_S
    told.send_due()
    assert not told._sent_at
