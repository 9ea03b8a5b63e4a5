"""`paqett device`: an account's devices."""

import argparse
import asyncio
from datetime import UTC, datetime
from typing import Any

from paqett import db, devices
from paqett.accounts import Account
from paqett.cli.commands import JSON, Commands, arg
from paqett.cli.output import show
from paqett.cli.running import plan_named, with_account
from paqett.readings import read
from paqett.settings import Settings

_LOOKED_EVERY_S = 0.5


def register(commands: Commands) -> None:
    """List, make, watch, and give a new secret."""
    actions = commands.group("device", "an account's devices")
    account = arg("--account", required=True, help="id or e-mail")
    for name, run, about, *further in (
        ("list", _list, "an account's devices"),
        ("create", _create, "make a device; its secret is shown once", arg("thing_name")),
        ("rotate", _rotate, "give a device a new secret; the old one is cut off", arg("device")),
        ("watch", _watch, "print readings as they are stored", arg("device")),
    ):
        actions.add(name, with_account(run), about, account, JSON, *further)


async def _list(conn: db.Connection, account: Account, _: Settings, __: argparse.Namespace) -> Any:
    return (await devices.list_devices(conn, account, limit=1000)).items


async def _create(
    conn: db.Connection, account: Account, settings: Settings, arguments: argparse.Namespace
) -> Any:
    plan = plan_named(settings, account.plan)
    return await devices.create(conn, account, plan, thing_name=arguments.thing_name)


async def _rotate(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> Any:
    return {"secret": await devices.rotate_secret(conn, account, arguments.device)}


async def _watch(
    conn: db.Connection, account: Account, _: Settings, arguments: argparse.Namespace
) -> None:
    seen: dict[tuple[str, str], datetime] = {}
    while True:
        rows = await read.latest(conn, account, [arguments.device], datetime.now(UTC))
        if not rows:
            await devices.get(conn, account, arguments.device)
        for row in rows:
            if seen.get((row.device, row.metric)) != row.time:
                seen[row.device, row.metric] = row.time
                show(row, as_json=arguments.json)
        await conn.commit()
        await asyncio.sleep(_LOOKED_EVERY_S)
