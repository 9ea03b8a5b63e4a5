"""A fleet over real MQTT: believable signals, gaps and faults, and a ledger of promises."""

import asyncio
import math
import random
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import msgspec

from paqett.local.fleet import SimDevice
from paqett.mqtt.publisher import Publisher

_DAY_S = 86_400
_GAP, _SPIKE, _STUCK = 0.002, 0.001, 0.002  # how often a device falls silent, jumps, or sticks
_LATE = 0.002  # how often it holds readings back, to send them late and out of order
_GRACE_S = 5.0  # for what is unacknowledged at the end
_CONNECTS_PER_S = 500.0
_TAKEOVER_WAIT_S = 5.0  # nobody else has these secrets: it is a broker that restarts fast


class Ledger(msgspec.Struct):
    """Messages handed to MQTT, and those the broker acknowledged."""

    published: int = 0
    acknowledged: int = 0


class _Reading(msgspec.Struct, frozen=True):
    """`ts` in µs since 1970."""

    ts: int
    values: dict[str, float]


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


class _Sender:
    """Sends one device's readings, now and then late and out of order, and keeps the ledger."""

    def __init__(
        self, device: SimDevice, publisher: Publisher, ledger: Ledger, file: IO[str] | None
    ) -> None:
        self._device, self._publisher = device, publisher
        self._ledger, self._file = ledger, file
        self._signal = Signal(device.id)
        self._random = random.Random(device.id)  # noqa: S311 - a signal, no secret
        self._held: list[_Reading] = []
        self._holding = 0

    def tick(self, now_us: int) -> None:
        """Measure at `now_us`, µs since 1970, and send unless the device holds back."""
        values = self._signal.read(now_us / 1e6)
        if values is not None:
            self._held.append(_Reading(now_us, values))
        if self._holding:
            self._holding -= 1
        elif self._random.random() < _LATE:
            self._holding = self._random.randint(3, 20)
        if not self._holding:
            self.flush()

    def flush(self) -> None:
        """Hand over what is held as one message."""
        if not self._held:
            return
        readings, self._held = self._held, []
        self._random.shuffle(readings)
        payload = msgspec.json.encode(readings if len(readings) > 1 else readings[0])
        self._ledger.published += 1
        self._publisher.enqueue("telemetry", payload).add_done_callback(
            lambda done: self._note(done, readings)
        )

    def _note(self, done: asyncio.Future[None], readings: list[_Reading]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        self._ledger.acknowledged += 1
        if self._file is not None:
            for reading in readings:
                self._file.write(f'["{self._device.id}", {reading.ts}, {len(reading.values)}]\n')


async def run(
    fleet: list[SimDevice], host: str, port: int, rate: float, stop: asyncio.Event,
    seconds: float | None = None, *, ledger_file: str | None = None,
) -> Ledger:  # fmt: skip
    """Each device sends `rate` messages a second, stamped by itself, until `stop`.

    Every acknowledged reading is a line `[device, time in µs, number of points]` of `ledger_file`,
    written when its PUBACK has come.
    """
    ledger = Ledger()
    _allow_connections(len(fleet))
    with ExitStack() as stack:
        file = stack.enter_context(Path(ledger_file).open("a")) if ledger_file else None  # noqa: ASYNC230 - opened once, before anything runs
        spread_s = len(fleet) / _CONNECTS_PER_S
        devices = [
            asyncio.create_task(_device(device, host, port, rate, spread_s, ledger, file))
            for device in fleet
        ]
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        for task in devices:
            task.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
    return ledger


def _allow_connections(number: int) -> None:
    """One descriptor each: the usual soft limit of 1,024 is too low for a large fleet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 256
    if soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))


async def _device(
    device: SimDevice, host: str, port: int, rate: float, spread_s: float,
    ledger: Ledger, file: IO[str] | None,
) -> None:  # fmt: skip
    await asyncio.sleep(random.uniform(0, spread_s))  # noqa: S311 - spread, no secret
    publisher = Publisher(host, port, device.id, device.secret, takeover_wait_s=_TAKEOVER_WAIT_S)
    async with publisher:
        sender = _Sender(device, publisher, ledger, file)
        try:
            for at in _ticks(rate):
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                sender.tick(time.time_ns() // 1000)
        finally:
            sender.flush()
            await publisher.close(grace_s=_GRACE_S)


def _ticks(rate: float) -> Iterator[float]:
    """Times to send at, spread so that the fleet does not beat as one."""
    at = time.monotonic() + random.uniform(0, 1 / rate)  # noqa: S311 - spread, no secret
    while True:
        yield at
        at += 1 / rate
