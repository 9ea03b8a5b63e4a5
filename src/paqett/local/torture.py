"""`paqett torture`: kill what runs here at random moments, then count what was promised.

It works on an installation started by `paqett up`, whose supervisor starts again what dies. The
processes are killed with SIGKILL; of the broker that is Mosquitto itself, which forgets what it
held in memory.
"""

import asyncio
import os
import random
import secrets
import signal
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
import psutil
from psycopg import Error

from paqett import db
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.local import fleet, promises, simulate, state
from paqett.local.fleet import SimDevice
from paqett.local.promises import Balance
from paqett.local.state import State
from paqett.local.torture_report import Report, Round, row_of
from paqett.plans import Plan
from paqett.settings import Settings
from paqett.sqlfiles import query, tier_query

TARGETS = ("ingest", "backend", "database", "broker", "api", "worker")
DEFAULT_TARGETS = ("ingest", "backend", "database")
_BACK_S = 120.0  # what is not back by then will not come
_STUCK_S = 30.0  # so long without progress, and what is missing is lost
_POLL_S = 0.05
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


class _Site:
    """The running installation, read anew at every look, since its pids change."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self._folder = settings.data_dir.resolve()
        current = self.state
        if not _is_paqett(current.pids.get("supervisor")):
            raise ConfigurationError(f"nothing runs in {self._folder}: start it with `paqett up`")
        self._database = msgspec.structs.replace(settings.database, url=current.database_url)
        self.tier = plan.tier
        self.accounts: list[int] = []

    @property
    def state(self) -> State:
        return state.load(self._folder)

    async def connect(self) -> Connection:
        return await db.connect(self._database, "torture", autocommit=True)

    async def flows(self, since: datetime) -> bool:
        """Whether a reading measured after `since` is stored; no while the database is away."""
        statement = tier_query("torture_flows", self.tier)
        with suppress(Error, OSError):
            async with await self.connect() as conn:
                values = {"accounts": self.accounts, "since": since}
                row = await (await conn.execute(statement, values)).fetchone()
                return bool(row and row["flows"])
        return False

    async def works(self, target: str) -> bool:
        """Whether a process whose work is not readings does it again."""
        with suppress(Error, OSError):
            if target == "api":
                return await asyncio.to_thread(_answers, f"{self.state.api_url}/readyz")
            if target == "worker":
                async with await self.connect() as conn:
                    row = await (await conn.execute(query("unscoped_torture_worker"))).fetchone()
                    return bool(row and row["connections"])
            return True
        return False

    async def kill(self, target: str) -> None:
        """SIGKILL to one process of `target`, at once or as soon as there is one.

        Raises `ConfigurationError` where none comes up.
        """
        for part in target.split("+"):
            await self._kill_one(part)

    async def _kill_one(self, target: str) -> None:
        deadline = time.monotonic() + _BACK_S
        while time.monotonic() < deadline:
            with suppress(Error, ProcessLookupError, psutil.NoSuchProcess):
                if await self._kill_now(target):
                    return
            await asyncio.sleep(_POLL_S)
        raise ConfigurationError(f"there is no {target} to kill")

    async def _kill_now(self, target: str) -> bool:
        if target == "backend":
            return await self._kill_backend()
        pid = self.state.pids[target]
        if target == "broker":
            children = psutil.Process(pid).children()
            found = [child.pid for child in children if child.name() == "mosquitto"]
            if not found:
                return False
            pid = found[0]
        os.kill(pid, signal.SIGKILL)
        return True

    async def _kill_backend(self) -> bool:
        async with await self.connect() as conn:
            rows = await (await conn.execute(query("unscoped_torture_backends"))).fetchall()
            if not rows:
                return False
            pid = random.choice(rows)["pid"]  # noqa: S311 - a victim, no secret
            if "database" in self.state.pids:
                os.kill(pid, signal.SIGKILL)
            else:
                await conn.execute(query("unscoped_torture_terminate"), {"pid": pid})
        return True


async def run(
    settings: Settings, plan: Plan, options: Options, stop: asyncio.Event,
    tell: Callable[[str], None],
) -> Report:  # fmt: skip
    """Kill, count and report; `stop` ends the rounds early, and what was sent is still counted.

    Raises `ConfigurationError` where nothing runs here or a target cannot be killed.
    """
    site = _Site(settings, plan)
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
    site: _Site, devices: list[SimDevice], options: Options, stop: asyncio.Event,
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
    site: _Site, options: Options, dice: random.Random, stop: asyncio.Event,
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


async def _round(site: _Site, number: int, target: str) -> Round:
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
    deadline = time.monotonic() + _BACK_S
    while time.monotonic() < deadline:
        if await ready():
            return time.monotonic()
        await asyncio.sleep(_POLL_S)
    return None


async def _removed(site: _Site, name: str) -> bool:
    with suppress(Error, OSError):
        async with await site.connect() as conn, conn.transaction():
            await fleet.remove(conn, name)
        return True
    return False


async def _drained(site: _Site, file: Path, since: datetime) -> Balance:
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


def _is_paqett(pid: int | None) -> bool:
    """The number may be another program's by now."""
    try:
        return pid is not None and "paqett" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback address
        return int(answer.status) == 200
