"""The composition root: what a process is made of, opened and closed in one place."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from psycopg import Error
from psycopg_pool import AsyncConnectionPool

from paqett import db, log, migrate, ops, pools
from paqett.billing.client import Stripe
from paqett.db import Connection
from paqett.errors import ConfigurationError, SchemaBehindError
from paqett.passwords import Hasher
from paqett.plans import Plan, load_plans
from paqett.replica import Readers
from paqett.settings import Settings

_logger = log.get("app")


class Services(msgspec.Struct, frozen=True):
    """What the API's handlers and the worker's tasks are given.

    `readers` is for readings: its statements have the statement timeout, and may be a replica's.
    """

    settings: Settings
    pool: AsyncConnectionPool[Connection]
    readers: Readers
    plans: dict[str, Plan]
    hasher: Hasher
    clock: Callable[[], datetime]
    stripe: Stripe | None = None

    @property
    def first_plan(self) -> Plan:
        """The plan of an account made without naming one, or that pays for none any more.

        Raises `ConfigurationError`.
        """
        name = self.settings.default_plan
        if name not in self.plans:
            raise ConfigurationError(f"paqett.default_plan: there is no plan {name}")
        return self.plans[name]


def utc_now() -> datetime:
    """The clock every process uses; tests give another."""
    return datetime.now(UTC)


@asynccontextmanager
async def services(
    settings: Settings, process: str, clock: Callable[[], datetime] = utc_now
) -> AsyncIterator[Services]:
    """Open the pools, read the plans, and know Stripe where it is set up; close them at the end.

    Raises `ConfigurationError`.
    """
    plans = load_plans(settings.plans_file)
    stripe = Stripe(settings.stripe) if settings.stripe.secret_key else None
    readers = Readers(settings.database, process)
    async with db.pool(settings.database, process) as pool, readers:
        pools.watch(pool, "main")
        hasher = Hasher(settings.auth)
        try:
            yield Services(settings, pool, readers, plans, hasher, clock, stripe)
        finally:
            hasher.close()
            if stripe is not None:
                await stripe.close()


async def wait_for_database(settings: Settings, stop: asyncio.Event) -> None:
    """Return once the database answers and has this program's schema, or `stop` is set.

    Waits for an older schema to be migrated, and goes on beside a newer one that allows it. Raises
    `SchemaOutdatedError` where that needs a newer program.
    """
    told = ""
    while not stop.is_set():
        try:
            conn = await db.connect(settings.database, "start", autocommit=True)
            async with conn:
                say_newer(await migrate.require_current(conn))
        except (Error, OSError):
            waits_for = "the database"
        except SchemaBehindError as error:
            waits_for = str(error)
        else:
            return
        ops.health.note("database", "failed", f"waiting: {waits_for}")
        if waits_for != told:
            _logger.warning("waiting", reason=waits_for)
            told = waits_for
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)


def say_newer(migrations: list[str]) -> None:
    """In log and metrics: the schema is of a newer program, soon to take this one's place."""
    ops.note_schema(migrations)
    if migrations:
        _logger.warning("the schema is newer than this program: upgrade it", unknown=migrations)


async def until_stopped(tasks: Iterable[asyncio.Task[Any]], stop: asyncio.Event) -> None:
    """Return when `stop` is set or the first of a process's tasks has ended."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
