"""The agent measures this machine, stamps what it measures, and keeps it while nobody listens."""

import asyncio
import json
import math
import socket
import time

from paqett.local import agent
from paqett.mqtt.publisher import Publisher


def test_a_report_holds_at_most_twelve_finite_numbers() -> None:
    meter = agent.Meter()
    report = json.loads(agent.report(meter, 1_700_000_000_000_000))
    assert report["ts"] == 1_700_000_000_000_000
    assert 6 <= len(report["values"]) <= 12
    assert all(math.isfinite(value) for value in report["values"].values())
    assert 0 <= report["values"]["memory.percent"] <= 100


def test_rates_are_never_negative_though_a_counter_starts_again() -> None:
    meter = agent.Meter()
    meter._totals = dict.fromkeys(meter._totals, 2**63)
    rates = {name: value for name, value in meter.read().items() if name.endswith("_per_s")}
    assert all(value == 0 for value in rates.values())


def test_reports_made_while_the_broker_is_away_carry_their_own_times() -> None:
    kept: list[tuple[str, bytes]] = []

    async def work() -> None:
        with socket.socket() as probe:  # a port nobody listens on
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        original = Publisher.enqueue

        def enqueue(self: Publisher, suffix: str, payload: bytes) -> asyncio.Future[None]:
            kept.append((suffix, payload))
            return original(self, suffix, payload)

        Publisher.enqueue = enqueue  # type: ignore[method-assign]
        stop = asyncio.Event()
        try:
            task = asyncio.create_task(
                agent.run("127.0.0.1", port, "aDevice", "secret", stop, interval_s=0.1)
            )
            await asyncio.sleep(0.8)
            stop.set()
            await asyncio.wait_for(task, 5)
        finally:
            Publisher.enqueue = original  # type: ignore[method-assign]

    before = time.time_ns() // 1000
    asyncio.run(work())
    after = time.time_ns() // 1000
    assert len(kept) >= 3
    assert {suffix for suffix, _ in kept} == {"telemetry"}
    stamps = [json.loads(payload)["ts"] for _, payload in kept]
    assert stamps == sorted(set(stamps))
    assert before <= stamps[0] <= stamps[-1] <= after
