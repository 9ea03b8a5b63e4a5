"""A fleet over real MQTT: believable signals, gaps and faults, and a ledger of what was promised."""

import asyncio
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from paqett.local.fleet import SimDevice
from paqett.mqtt.publisher import Publisher

_DAY_S = 86_400
_GAP, _SPIKE, _STUCK = 0.002, 0.001, 0.002  # how often a device falls silent, jumps, or sticks


class Ledger(msgspec.Struct):
    """Messages handed to MQTT, and those the broker acknowledged."""

    published: int = 0
    acknowledged: int = 0


class Signal:
    """One device's weather: the temperature follows the day, humidity goes against it."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a signal, no secret
        self._phase = self._random.uniform(0, 2 * math.pi)
        self._base = self._random.uniform(12, 24)
        self._battery = self._random.uniform(80, 100)
        self._silent = self._stuck = 0
        self._last: dict[str, float] = {}

    def read(self, now_s: float) -> dict[str, float] | None:
        """Values at `now_s` seconds since 1970; None while the device is in a gap."""
        dice = self._random.random()
        if self._silent or dice < _GAP:
            self._silent = self._silent - 1 if self._silent else self._random.randint(3, 20)
            return None
        if self._stuck or _GAP < dice < _GAP + _STUCK:
            self._stuck = self._stuck - 1 if self._stuck else self._random.randint(5, 30)
            if self._last:
                return self._last
        day = math.sin(2 * math.pi * now_s / _DAY_S + self._phase)
        temperature = self._base + 6 * day + self._random.gauss(0, 0.2)
        if dice > 1 - _SPIKE:
            temperature += self._random.choice((-60, 80))
        self._battery = max(0.0, self._battery - 0.00005)
        self._last = {
            "temperature": round(temperature, 2),
            "humidity": round(55 - 15 * day + self._random.gauss(0, 1), 1),
            "battery": round(self._battery, 2),
        }
        return self._last


async def run(
    fleet: list[SimDevice], host: str, port: int, rate: float, stop: asyncio.Event,
    seconds: float | None = None, *, ledger_file: str | None = None,
) -> Ledger:  # fmt: skip
    """Each device sends `rate` messages a second, stamped by itself, until `stop`.

    Every acknowledged message is a line `[device, time in µs, number of points]` of `ledger_file`,
    written when its PUBACK has come.
    """
    ledger = Ledger()
    with ExitStack() as stack:
        file = stack.enter_context(Path(ledger_file).open("a")) if ledger_file else None  # noqa: ASYNC230 - opened once, before anything runs
        devices = [
            asyncio.create_task(_device(device, host, port, rate, ledger, file)) for device in fleet
        ]
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        for task in devices:
            task.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
    return ledger


async def _device(
    device: SimDevice, host: str, port: int, rate: float, ledger: Ledger, file: IO[str] | None
) -> None:
    publisher = Publisher(host, port, device.id, device.secret)
    connection = asyncio.create_task(publisher.run())
    try:
        await _send_forever(publisher, device, rate, ledger, file)
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


def _ticks(rate: float) -> Iterator[float]:
    """Times to send at, spread so that the fleet does not beat as one."""
    at = time.monotonic() + random.uniform(0, 1 / rate)  # noqa: S311 - spread, no secret
    while True:
        yield at
        at += 1 / rate


async def _send_forever(
    publisher: Publisher, device: SimDevice, rate: float, ledger: Ledger, file: IO[str] | None
) -> None:
    signal = Signal(device.id)
    for at in _ticks(rate):
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        now_us = time.time_ns() // 1000
        values = signal.read(now_us / 1e6)
        if values is None:
            continue
        payload = msgspec.json.encode({"ts": now_us, "values": values})
        future = publisher.enqueue("telemetry", payload)
        ledger.published += 1

        def note(
            done: asyncio.Future[Any], now_us: int = now_us, points: int = len(values)
        ) -> None:
            if done.cancelled():
                return
            ledger.acknowledged += 1
            if file is not None:
                file.write(json.dumps([device.id, now_us, points]) + "\n")

        future.add_done_callback(note)
