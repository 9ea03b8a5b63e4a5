"""`paqett admin`: what an operator does; each subject has a module of its own."""

import argparse
from datetime import UTC, datetime
from typing import Any

from paqett import accounts, db
from paqett.accounts import Account
from paqett.cli import accounts as people
from paqett.cli import backups, oversight
from paqett.cli.commands import ACCOUNT, JSON, Commands, flag
from paqett.cli.running import with_account, with_database
from paqett.erasure import closing
from paqett.settings import Settings


def register(commands: Commands) -> None:
    """Accounts, what they use, how they end, and the copies of it all."""
    actions = commands.group("admin", "accounts, keys and plans")
    people.register(actions)
    oversight.register(actions)
    actions.add(
        "erase", with_account(_erase),
        "delete an account as its person would: in 7 days, with all that is its",
        ACCOUNT, flag("--now", "at once, and nothing undoes it"), JSON,
    )  # fmt: skip
    backups.register(actions)
    actions.add("list", with_database(_list), "all accounts", JSON)


async def _erase(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> Any:
    return await closing.ask(conn, account.id, "operator", datetime.now(UTC), at_once=arguments.now)


async def _list(conn: db.Connection, _: Settings, __: argparse.Namespace) -> Any:
    return await accounts.list_all(conn)
