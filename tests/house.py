"""An account with rules, doors that flush for it, and a worker with a clock of the test's."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kept import Kept
from paqett import alerts, app, db, notices
from paqett.accounts import Account
from paqett.alert_rules import Rule, RuleIn
from paqett.app import Services
from paqett.db import Connection
from paqett.plans import load_plans
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import write_batch
from paqett.settings import Settings
from paqett.worker import alerts as worker
from support import Tenant

SECOND = 1_000_000


class Killed(Exception):
    """The process went away before its commit."""


class House:
    """One account's: `send` flushes through one of two doors, `tick` is a second of the worker's.

    Its time is an hour ahead of the machine's, so that only the test moves it.
    """

    def __init__(self, settings: Settings, tenant: Tenant) -> None:
        self.settings = settings
        self.account_id, self.devices = tenant.account_id, tenant.devices
        self.plans = load_plans(settings.plans_file)
        self.doors = [Directory(self.plans), Directory(self.plans)]
        self._kept = Kept()
        self.now = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)

    @property
    def us(self) -> int:
        return round(self.now.timestamp()) * SECOND

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def restart(self, door: int = 0) -> None:
        self.doors[door] = Directory(self.plans)

    def do(self, work: Callable[[Connection], Any]) -> Any:
        """Something in a transaction."""

        async def run() -> Any:
            conn = await self._kept.once("connection", self._connect)
            async with conn.transaction():
                return await work(conn)

        return self._kept.run(run())

    def serve(self, work: Callable[[Services], Any]) -> Any:
        """Something with a worker's services."""

        async def run() -> Any:
            return await work(await self._kept.once("services", self._services))

        return self._kept.run(run())

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Connection]:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            yield conn

    def _services(self) -> AbstractAsyncContextManager[Services]:
        return app.services(self.settings, "test", lambda: self.now)

    def send(
        self, *items: Any, door: int = 0, device: int = 0, at: int | None = None, kill: bool = False
    ) -> Outcome:
        """One flush, a message for each item, received now or `at` (µs)."""
        received = self.us if at is None else at
        messages = [
            Incoming(self.devices[device], "telemetry", msgspec.json.encode(item), received + n)
            for n, item in enumerate(items)
        ]

        async def work(conn: Connection) -> Outcome:
            outcome = await write_batch(conn, self.doors[door], messages)
            if kill:
                raise Killed
            return outcome

        try:
            return self.do(work)  # type: ignore[no-any-return]
        except Killed:
            self.doors[door].forget(self.devices)
            return Outcome()

    def rule(self, **fields: Any) -> Rule:
        """Make a rule, as the API does."""

        async def work(conn: Connection) -> Rule:
            account = await self._account(conn)
            wanted = msgspec.convert({"name": "rule", **fields}, RuleIn)
            return await alerts.create(conn, account, self.plans["own"], wanted, self.now)

        return self.do(work)  # type: ignore[no-any-return]

    async def _account(self, conn: Connection) -> Account:
        row = await (
            await conn.execute(
                "SELECT id, email, plan, tier, moving_from, readable_from, retention"
                " FROM account JOIN tier ON tier.name = tier WHERE id = %s",
                (self.account_id,),
            )
        ).fetchone()
        return msgspec.convert(row, Account)

    def units(self) -> dict[int, str]:
        """What the levels of rules are measured in, as their page says it."""

        async def work(conn: Connection) -> dict[int, str]:
            return await alerts.units(conn, await self._account(conn))

        return self.do(work)  # type: ignore[no-any-return]

    def above(self, level: float = 30, **more: Any) -> Rule:
        fields = {"kind": "threshold", "metric": "t", "operator": ">", "threshold": level, **more}
        return self.rule(**fields)

    def tick(self) -> None:
        """Everything the worker does about alerts."""

        async def work(services: Services) -> None:
            await worker.fire_due(services)
            await worker.look_after_absence(services)
            await worker.tell_all(services)

        self.serve(work)

    def wait(self, seconds: int) -> None:
        """The worker looks every ten seconds for so long."""
        for _ in range(0, seconds, 10):
            self.later(10)
            self.tick()

    def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        found = self._kept.looking(self.settings.database.url).execute(text, values)
        return found.fetchall() if found.description else []

    def states(self, device: int = 0) -> list[str]:
        """Of the device's alerts in the order they began."""
        rows = self.rows(
            "SELECT state FROM alert WHERE device_id = %s ORDER BY id", self.devices[device]
        )
        return [state for (state,) in rows]

    def told(self) -> list[str]:
        """The notices of alerts, in order."""
        rows = self.rows("SELECT event FROM notice WHERE event LIKE 'alert%%' ORDER BY id")
        return [event for (event,) in rows]

    def titles(self) -> list[str]:
        async def work(conn: Connection) -> list[str]:
            page = await notices.list_notices(
                conn, self.account_id, kind="device", devices=None, limit=100, cursor=None
            )
            return [f"{notice.title}: {notice.text}" for notice in page.items]

        return self.do(work)  # type: ignore[no-any-return]
