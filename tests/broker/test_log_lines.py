"""Mosquitto's own lines, as 2.0.11, 2.0.21 and 2.1.2 write them."""

import pytest

from paqett.broker.log_lines import is_running, is_signed_in, parse
from paqett.broker.record import Event


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
        (
            "Client dev2 disconnected: Connection reset by peer.",
            Event("disconnected", "dev2", "Connection reset by peer"),
        ),
        (
            "Bad socket read/write on client dev2: Invalid function arguments provided.",
            Event("disconnected", "dev2", "connection lost"),
        ),
        (
            "Client dev2 been disconnected by administrative action.",
            Event("disconnected", "dev2", "cut off by the platform"),
        ),
        (
            "Client dev1 [127.0.0.1:48272] disconnected.",
            Event("disconnected", "dev1", "signed off, or cut off by the platform"),
        ),
        (
            "Client dev1 [127.0.0.1:48284] disconnected: connection closed by client.",
            Event("disconnected", "dev1", "connection lost"),
        ),
        (
            "Client dev1 [::1:54040] disconnected: exceeded timeout.",
            Event("disconnected", "dev1", "keep-alive timeout"),
        ),
        (
            "Client dev1 [127.0.0.1:48294] disconnected: session taken over.",
            Event("taken_over", "dev1", "another connection signed in"),
        ),
        (
            "Client dev1 [127.0.0.1:48256] disconnected: not authorised.",
            Event("refused", "dev1", "unknown id or wrong secret"),
        ),
        (
            "Client dev2 [127.0.0.1:54004] disconnected: oversize packet.",
            Event("disconnected", "dev2", "oversize packet"),
        ),
        (
            "Client dev2 [127.0.0.1:54004] disconnected: Connection reset by peer.",
            Event("disconnected", "dev2", "Connection reset by peer"),
        ),
        (
            "Client dev2 [127.0.0.1:54004] disconnected: bad socket read/write: Unknown error.",
            Event("disconnected", "dev2", "connection lost"),
        ),
        ("Client 127.0.0.1 [127.0.0.1:54044] disconnected: protocol error.", None),
        ("Bad client dev1 sending multiple CONNECT messages.", None),
        ("New connection from 127.0.0.1:44656 on port 18830.", None),
        ("mosquitto version 2.0.11 running", None),
    ],
)
def test_a_line_becomes_its_event(line: str, event: Event | None) -> None:
    assert parse(f"2026-11-24T02:27:58Z: {line}") == event


@pytest.mark.parametrize(
    "line",
    [
        # a stranger without username or password, whose client id is a sentence
        "Client x New client connected from 6.6.6.6:1 as dev2 (p disconnected, not authorised.",
        "Client Client dev2 closed its connection disconnected, not authorised.",
        "Client dev2 closed its connection. disconnected, not authorised.",
        "Client dev2 disconnected due to oversize packet disconnected, not authorised.",
        "Client dev2 disconnected: Broken pipe disconnected, not authorised.",
        "Client dev2 [6.6.6.6:1] disconnected [127.0.0.1:4] disconnected: not authorised.",
        "Client dev2 [6.6.6.6:1] disconnected. [127.0.0.1:4] disconnected: not authorised.",
        "Client dev2 [6.6.6.6:1] disconnected: bad socket read/write: x [127.0.0.1:4] disconnected:"
        " not authorised.",
        # a device on the platform's listener, with another's id or a sentence
        "New client connected from 127.0.0.1:44656 as dev2 (p2, c1, k60, u'dev1').",
        "New client connected from 127.0.0.1:36132 as evil:"
        " New client connected from 6.6.6.6:1 as dev2 (p2, c1, k60, u'dev2')."
        " (p2, c1, k60, u'dev1').",
        "Client evil: New client connected from 6.6.6.6:1 as dev2 (p closed its connection.",
        "Bad socket read/write on client dev2: : Success",
        # cut by the broker at 1,000 characters
        "Client dev2 disconnected due to " + "x" * 945,
    ],
)
def test_a_client_id_that_reads_like_the_broker_is_no_event(line: str) -> None:
    assert parse(f"2026-11-24T03:00:55Z: {line}") is None


def test_the_platform_signs_in() -> None:
    said = "New client connected from 127.0.0.1:44656 as writer-1 (p5, c0, k20, u'paqett.ingest')."
    line = f"2026-11-24T02:59:50Z: {said}"
    assert is_signed_in(line, "writer-1")
    assert not is_signed_in(line, "writer-2")
    assert parse(line) is None


def test_only_the_brokers_own_line_says_that_it_runs() -> None:
    assert is_running("2026-11-24T02:59:50Z: mosquitto version 2.0.11 running")
    assert not is_running("2026-11-24T02:59:50Z: mosquitto version 2.0.11 starting")
    assert not is_running(
        "2026-11-24T02:59:50Z: Client mosquitto version 2 running disconnected, not authorised."
    )
