"""Mosquitto's own lines, as 2.0.11 and 2.0.21 write them."""

import pytest

from paqett.broker.log_lines import Event, parse


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "New client connected from 127.0.0.1:44656 as dev1 (p2, c1, k60, u'dev1').",
            Event("connected", "dev1", ip="127.0.0.1"),
        ),
        (
            "New client connected from ::1:44656 as dev1 (p5, c1, k60, u'dev1').",
            Event("connected", "dev1", ip="::1"),
        ),
        (
            "Client dev1 disconnected.",
            Event("disconnected", "dev1", "signed off, or cut off by the platform"),
        ),
        ("Client dev1 closed its connection.", Event("disconnected", "dev1", "connection lost")),
        (
            "Client dev1 has exceeded timeout, disconnecting.",
            Event("disconnected", "dev1", "keep-alive timeout"),
        ),
        (
            "Client dev1 already connected, closing old connection.",
            Event("taken_over", "dev1", "another connection signed in"),
        ),
        (
            "Client <unknown> disconnected, not authorised.",
            Event("refused", "", "unknown id or wrong secret"),
        ),
        (
            "Client dev2 disconnected due to oversize packet.",
            Event("disconnected", "dev2", "oversize packet"),
        ),
        ("New connection from 127.0.0.1:44656 on port 18830.", None),
        ("mosquitto version 2.0.11 running", None),
    ],
)
def test_a_line_becomes_its_event(line: str, event: Event | None) -> None:
    assert parse(f"2026-11-24T02:27:58Z: {line}") == event
