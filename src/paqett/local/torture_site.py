"""The installation that is tortured: what of it can be killed, and whether it works again."""

import asyncio
import os
import random
import signal
import time
import urllib.request
from contextlib import suppress
from datetime import datetime

import msgspec
import psutil
from psycopg import Error

from paqett import db
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.local import state
from paqett.local.state import State
from paqett.plans import Plan
from paqett.settings import Settings
from paqett.sqlfiles import query, tier_query

BACK_S = 120.0  # what is not back by then will not come
POLL_S = 0.05


class Site:
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
        """What the supervisor has written down: addresses and pids."""
        return state.load(self._folder)

    async def connect(self) -> Connection:
        """A connection of its own to the database, each statement a transaction."""
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
        deadline = time.monotonic() + BACK_S
        while time.monotonic() < deadline:
            with suppress(Error, ProcessLookupError, psutil.NoSuchProcess):
                if await self._kill_now(target):
                    return
            await asyncio.sleep(POLL_S)
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


def _is_paqett(pid: int | None) -> bool:
    """The number may be another program's by now."""
    try:
        return pid is not None and "paqett" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback address
        return int(answer.status) == 200
