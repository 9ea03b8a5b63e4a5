"""`paqett torture`: kill what runs here at random moments, then count what was promised.

It works on an installation started by `paqett up`, whose supervisor starts again what dies. The
processes are killed with SIGKILL; of the broker that is Mosquitto itself, which forgets what it
held in memory.
"""

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
from psycopg import Error

from paqett.errors import ConfigurationError
from paqett.local import fleet, promises, simulate
from paqett.local.fleet import SimDevice
from paqett.local.promises import Balance
from paqett.local.state import State
from paqett.local.torture_report import Report, Round, row_of
from paqett.local.torture_site import BACK_S, POLL_S, Site
from paqett.plans import Plan
from paqett.settings import Settings

TARGETS = ("ingest", "backend", "database", "broker", "api", "worker")
DEFAULT_TARGETS = ("ingest", "backend", "database")
_STUCK_S = 30.0  # so long without progress, and what is missing is lost
_CLOCK_SKEW = timedelta(minutes=1)


class Options(msgspec.Struct, frozen=True):
    """`rate` is messages a second of each device; the same `seed` kills in the same order.

    A target `a+b` is both at once.
    """

    targets: tuple[str, ...] = DEFAULT_TARGETS
    rounds: int = 10
    devices: int = 50
    rate: float = 2.0
    seed: int | None = None
    broker_may_lose: bool = False
    keep: bool = False


async def run(
    settings: Settings, plan: Plan, options: Options, stop: asyncio.Event,
    tell: Callable[[str], None],
) -> Report:  # fmt: skip
    """Kill, count and report; `stop` ends the rounds early, and what was sent is still counted.

    Raises `ConfigurationError` where nothing runs here or a target cannot be killed.
    """
    site = Site(settings, plan)
    _check_targets(options.targets, site.state)
    name = f"torture-{secrets.token_hex(4)}"
    async with await site.connect() as conn:
        devices = await fleet.create(conn, name, options.devices, 1, plan)
    site.accounts = sorted({device.account_id for device in devices})
    try:
        return await _torture(site, devices, options, stop, tell)
    finally:
        if options.keep:
            tell(f"kept: `paqett simulate --remove --name {name}` removes the fleet")
        else:
            await _until(lambda: _removed(site, name))


async def _torture(
    site: Site, devices: list[SimDevice], options: Options, stop: asyncio.Event,
    tell: Callable[[str], None],
) -> Report:  # fmt: skip
    seed = secrets.randbits(32) if options.seed is None else options.seed
    began, enough, here = datetime.now(UTC), asyncio.Event(), site.state
    with tempfile.TemporaryDirectory(prefix="paqett-torture-") as folder:
        file = Path(folder) / "ledger.jsonl"
        sending = asyncio.create_task(
            simulate.run(
                devices, here.mqtt_host, here.mqtt_port, options.rate, enough,
                ledger_file=str(file),
            )
        )  # fmt: skip
        try:
            rounds = await _rounds(site, options, random.Random(seed), stop, tell)  # noqa: S311 - moments, no secret
        finally:
            enough.set()
            ledger = await sending
        tell("counting")
        balance = await _drained(site, file, began - _CLOCK_SKEW)
    return Report(
        seed, rounds, ledger.published, ledger.acknowledged, balance.promised, balance.stored,
        balance.missing, balance.doubled, _passed(rounds, balance, options),
    )  # fmt: skip


def _passed(rounds: list[Round], balance: Balance, options: Options) -> bool:
    """Missing readings are forgiven to a killed broker alone, and only where asked for."""
    forgiven = options.broker_may_lose and any(
        "broker" in entry.target.split("+") for entry in rounds
    )
    return (
        balance.promised > 0
        and balance.doubled == 0
        and (balance.missing == 0 or forgiven)
        and all(entry.back_s is not None for entry in rounds)
    )


async def _rounds(
    site: Site, options: Options, dice: random.Random, stop: asyncio.Event,
    tell: Callable[[str], None],
) -> list[Round]:  # fmt: skip
    """Raises `ConfigurationError` where no readings arrive even before the first kill."""
    began = datetime.now(UTC)
    if await _until(lambda: site.flows(began)) is None:
        raise ConfigurationError("the fleet's readings do not arrive; `paqett doctor` may know why")
    done: list[Round] = []
    for target in islice(_order(options.targets, dice), options.rounds):
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), dice.uniform(0.1, 2.0))
        if stop.is_set():
            break
        done.append(await _round(site, len(done) + 1, target))
        tell(row_of(done[-1]))
        if done[-1].back_s is None:
            break
    return done


async def _round(site: Site, number: int, target: str) -> Round:
    before = site.state.pids.get(target)
    await site.kill(target)
    killed_at, began = datetime.now(UTC), time.monotonic()

    async def back() -> bool:
        restarted = target in ("backend", "broker") or site.state.pids.get(target) != before
        return restarted and await site.flows(killed_at) and await site.works(target)

    came = await _until(back)
    return Round(number, target, killed_at, None if came is None else round(came - began, 2))


def _order(targets: tuple[str, ...], dice: random.Random) -> Iterator[str]:
    """For ever: each target once, in any order, before one comes again."""
    while True:
        yield from dice.sample(targets, len(targets))


async def _until(ready: Callable[[], Awaitable[bool]]) -> float | None:
    """When `ready` said yes, on the monotonic clock in seconds; None after two minutes of no."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        if await ready():
            return time.monotonic()
        await asyncio.sleep(POLL_S)
    return None


async def _removed(site: Site, name: str) -> bool:
    with suppress(Error, OSError):
        async with await site.connect() as conn, conn.transaction():
            await fleet.remove(conn, name)
        return True
    return False


async def _drained(site: Site, file: Path, since: datetime) -> Balance:
    """The balance once nothing is missing and nothing comes any more, or for 30 s nothing came."""
    async with await site.connect() as conn:
        await promises.stage(conn, file)
        best, seen, since_when = -1, -1, time.monotonic()
        while True:
            balance = await promises.count(conn, site.tier, site.accounts, since)
            if balance.missing == 0 and balance.stored == seen:
                return balance
            if best < 0 or balance.missing < best or balance.stored > seen:
                since_when = time.monotonic()
            if time.monotonic() - since_when > _STUCK_S:
                return balance
            best, seen = balance.missing, balance.stored
            await asyncio.sleep(1)


def _check_targets(targets: tuple[str, ...], current: State) -> None:
    parts = {part for target in targets for part in target.split("+")}
    if not parts <= set(TARGETS) or not targets:
        raise ConfigurationError(f"--targets takes some of {','.join(TARGETS)}, or a+b for both")
    absent = [name for name in parts if name != "backend" and name not in current.pids]
    if absent:
        raise ConfigurationError(f"{', '.join(absent)}: not started by `paqett up` here")
