"""`paqett admin create-account` to `set-plan`: accounts, who is signed in, keys and plans."""

import argparse
import getpass
import re
import sys
from datetime import UTC, datetime
from typing import Any

from paqett import accounts, db, keys, moves, notices, passwords, sessions
from paqett.accounts import Account
from paqett.billing import sync as billing
from paqett.cli.commands import ACCOUNT, JSON, Commands, arg, flag
from paqett.cli.output import say
from paqett.cli.running import plan_named, with_account, with_database
from paqett.errors import Conflict, Invalid
from paqett.principals import SCOPES
from paqett.settings import Settings


def register(actions: Commands) -> None:
    """Make accounts and keys, and change what an account may."""
    actions.add(
        "create-account", with_database(_create), "make an account",
        arg("email"), arg("--plan"), flag("--operator", "may look after the others"),
        flag("--password-stdin",
             "read the password from standard input; without, the person resets it by mail"),
        JSON,
    )  # fmt: skip
    for name, run, about, *flags in (
        ("set-password", _set_password, "read a new password from standard input; sessions end"),
        ("disable", _disable, "close an account to all but export and deletion; devices cut off"),
        ("enable", _enable, "open it again"),
        ("set-operator", _set_operator, "let its person look after other accounts",
         flag("--off", "no longer")),
        ("sessions", _sessions, "where an account is signed in", flag("--end", "end all of them")),
    ):  # fmt: skip
        actions.add(name, with_account(run), about, ACCOUNT, JSON, *flags)
    actions.add(
        "create-key", with_account(_create_key), "make an API key; it is shown once",
        ACCOUNT, arg("--name", default="made by admin"),
        arg("--scopes", default=",".join(sorted(SCOPES)), help="separated by commas"), JSON,
    )  # fmt: skip
    actions.add(
        "set-plan", with_account(_set_plan), "change an account's plan",
        ACCOUNT, arg("plan"), JSON,
    )  # fmt: skip


async def _create(conn: db.Connection, settings: Settings, arguments: argparse.Namespace) -> Any:
    plan = plan_named(settings, arguments.plan or settings.default_plan)
    if not re.fullmatch(accounts.EMAIL, arguments.email):
        raise Invalid(f"{arguments.email} is no e-mail address.")
    account = await accounts.create(conn, arguments.email, plan)
    if arguments.operator:
        await accounts.set_operator(conn, account.id, operator=True)
    if arguments.password_stdin:
        hashed = await _password_from_stdin(settings, account.email)
        await accounts.set_password(conn, account.id, hashed)
    return account


async def _password_from_stdin(settings: Settings, email: str) -> str:
    typed = sys.stdin.isatty()
    password = getpass.getpass() if typed else sys.stdin.readline().rstrip("\r\n")
    if typed and getpass.getpass("Again: ") != password:
        raise Invalid("The two are not the same.")
    passwords.check(password, email)
    return await passwords.hash_once(settings.auth, password)


async def _set_password(
    conn: db.Connection, account: Account, settings: Settings, _: argparse.Namespace
) -> None:
    hashed = await _password_from_stdin(settings, account.email)
    await accounts.set_password(conn, account.id, hashed)
    await sessions.end_all(conn, account.id, datetime.now(UTC))
    await notices.notify(conn, account.id, "password_changed")
    say(f"the password of {account.email} is set; its sessions have ended")


async def _disable(
    conn: db.Connection, account: Account, _: Settings, __: argparse.Namespace
) -> None:
    await accounts.set_disabled(conn, account.id, datetime.now(UTC))
    await notices.notify(conn, account.id, "account_disabled")
    say(f"{account.email} is disabled")


async def _enable(
    conn: db.Connection, account: Account, _: Settings, __: argparse.Namespace
) -> None:
    await accounts.set_disabled(conn, account.id, None)
    await notices.notify(conn, account.id, "account_enabled")
    say(f"{account.email} is enabled")


async def _set_operator(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> None:
    await accounts.set_operator(conn, account.id, operator=not arguments.off)
    say(f"{account.email} is {'no longer ' if arguments.off else ''}an operator")


async def _sessions(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> Any:
    if arguments.end:
        await sessions.end_all(conn, account.id, datetime.now(UTC))
    return await sessions.list_sessions(conn, account.id, None)


async def _create_key(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> Any:
    scopes = [scope.strip() for scope in arguments.scopes.split(",")]
    return await keys.create(conn, account.id, arguments.name, scopes, None, None)


async def _set_plan(
    conn: db.Connection, account: Account, settings: Settings, arguments: argparse.Namespace
) -> Any:
    plan = plan_named(settings, arguments.plan)
    bought = await billing.known(conn, account.id)
    if settings.stripe.secret_key and bought is not None and bought.granted is not None:
        raise Conflict(
            f"{account.email} pays for the plan {bought.granted}, and Stripe decides it: end the"
            " subscription there first"
        )
    due = await moves.set_plan(conn, account.id, plan, datetime.now(UTC))
    return {"account": account.id, "plan": plan.name, "tier_changes_at": due}
