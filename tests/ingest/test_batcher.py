"""Batches are cut by number, by memory and by age, and no clock that is set delays one."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paqett.ingest.batcher import Batch, Batcher
from paqett.mqtt.consumer import Message

AGE_S = 0.05
SOON_S = 1.0
HOUR_NS = 3600 * 10**9
FIVE_HUNDRED = b"[" + b"{}," * 499 + b"{}]"


def message(device: str, payload: bytes = b'{"t":1}', topic: str = "telemetry") -> Message:
    name = f"paqett/v1/{device}/{topic}"
    return Message(name, payload, None, 1, len(name) + len(payload) + 300)


def devices(batch: Batch) -> list[str]:
    return [incoming.device_id for incoming in batch.incoming]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def timed(batcher: Batcher) -> tuple[Batch, float]:
    began = time.monotonic()
    batch = await asyncio.wait_for(batcher.take(), 30)
    return batch, time.monotonic() - began


def test_a_device_whose_times_of_receipt_run_ahead_of_the_clock_delays_nobody() -> None:
    async def work() -> None:
        batcher = Batcher(1000, AGE_S, 2**30)
        for _ in range(5500):
            batcher.put(message("busy", FIVE_HUNDRED))
        for _ in range(5):
            assert len((await timed(batcher))[0].messages) == 1000
        batcher.put(message("other"))
        batch, took_s = await timed(batcher)
        now_us = time.time_ns() // 1000
        assert batch.incoming[0].received_us > now_us + 1_000_000  # else nothing is proved
        assert devices(batch) == ["busy"] * 500 + ["other"]
        assert batch.incoming[-1].received_us <= now_us
        assert took_s < SOON_S

    run(work)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_neither_delays_a_batch_nor_cuts_it_short(monkeypatch, hours) -> None:
    real_ns = time.time_ns

    async def work() -> None:
        batcher = Batcher(1000, 0.3, 2**30)
        batcher.put(message("a"))
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: real_ns() + hours * HOUR_NS)
            batcher.put(message("b"))
            batch, took_s = await timed(batcher)
        assert devices(batch) == ["a", "b"]
        assert 0.25 < took_s < 0.3 + SOON_S

    run(work)


def test_a_batchs_age_is_its_oldest_messages_by_the_clock_nobody_sets() -> None:
    async def work() -> None:
        batcher = Batcher(1000, AGE_S, 2**30)
        before = time.monotonic()
        batcher.put(message("a"))
        after = time.monotonic()
        await asyncio.sleep(2 * AGE_S)
        batcher.put(message("b"))
        batch, took_s = await timed(batcher)
        assert before <= batch.since <= after
        assert took_s < AGE_S  # it has waited long enough already

    run(work)


def test_long_topics_without_payloads_fill_a_batch() -> None:
    most = 2**20

    async def work() -> None:
        batcher = Batcher(100_000, 60.0, most)
        sent = [message("a", b"", "t" * 65_000) for _ in range(100)]
        for one in sent:
            batcher.put(one)
        taken: list[Message] = []
        while len(batcher) * 65_000 >= most:
            batch, took_s = await timed(batcher)
            assert took_s < SOON_S
            assert sum(len(one.topic) for one in batch.messages) <= most + 65_100
            taken += batch.messages
        assert taken == sent[: len(taken)]
        assert len(taken) > 80

    run(work)


def test_many_empty_messages_fill_a_batch_too() -> None:
    async def work() -> None:
        batcher = Batcher(1_000_000, 60.0, 2**20)
        for _ in range(2**20 // 300):
            batcher.put(message("a", b""))
        batch, took_s = await timed(batcher)
        assert took_s < SOON_S
        assert len(batch.messages) > 1000

    run(work)


def test_what_is_cut_off_is_no_longer_counted() -> None:
    async def work() -> None:
        batcher = Batcher(10, AGE_S, 10_000)
        for round_ in range(20):
            for number in range(30):
                batcher.put(message(f"d{number}", b"x" * (round_ * 100)))
            left = 30
            while left:
                left -= len((await timed(batcher))[0].messages)
        assert len(batcher) == 0
        batcher.put(message("alone"))
        batch, took_s = await timed(batcher)
        assert devices(batch) == ["alone"]
        assert took_s >= AGE_S * 0.9  # nothing left over fills the batch

    run(work)
