"""What a command runs in: until a signal, or in one transaction of the database."""

import argparse
import asyncio
import getpass
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from paqett import accounts, db, ops
from paqett.accounts import Account
from paqett.cli.commands import Run
from paqett.cli.output import show
from paqett.errors import ConfigurationError
from paqett.plans import Plan, load_plans
from paqett.settings import Settings

Process = Callable[[Settings, asyncio.Event], Awaitable[None]]
Action = Callable[[Settings, argparse.Namespace], Awaitable[Any]]
OnDatabase = Callable[[db.Connection, Settings, argparse.Namespace], Awaitable[Any]]
OnAccount = Callable[[db.Connection, Account, Settings, argparse.Namespace], Awaitable[Any]]


async def until_signal(run: Process, settings: Settings) -> None:
    """Run until it ends by itself; SIGTERM and SIGINT set its event."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beating = asyncio.create_task(ops.health.keep_beating())
    try:
        await run(settings, stop)
    finally:
        beating.cancel()


def on_its_own(action: Action) -> Run:
    """An action that opens what it needs itself; what it returns is shown."""

    def start(settings: Settings, arguments: argparse.Namespace) -> int:
        shown = asyncio.run(_awaited(action, settings, arguments))
        if shown is not None:
            show(shown, as_json=arguments.json)
        return 0

    return start


async def _awaited(action: Action, settings: Settings, arguments: argparse.Namespace) -> Any:
    return await action(settings, arguments)


def with_database(action: OnDatabase) -> Run:
    """An action in one transaction."""

    async def run(settings: Settings, arguments: argparse.Namespace) -> Any:
        async with await db.connect(settings.database, "admin") as conn:
            return await action(conn, settings, arguments)

    return on_its_own(run)


def with_account(action: OnAccount) -> Run:
    """An action on `arguments.account`, which can see that an operator looked or changed it."""

    async def run(conn: db.Connection, settings: Settings, arguments: argparse.Namespace) -> Any:
        from paqett import notices

        account = await accounts.find(conn, arguments.account)
        what = f"paqett {arguments.command} {arguments.action}"
        by = f"{getpass.getuser()} on the command line"
        await notices.notify(conn, account.id, "operator_access", what=what, by=by)
        return await action(conn, account, settings, arguments)

    return with_database(run)


def plan_named(settings: Settings, name: str) -> Plan:
    """Raises `ConfigurationError` where there is no such plan."""
    plans = load_plans(settings.plans_file)
    if name not in plans:
        raise ConfigurationError(f"no plan {name}; there are {', '.join(plans)}")
    return plans[name]
