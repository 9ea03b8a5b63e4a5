"""`paqett simulate` and `torture`: fleets of devices that are not there."""

import argparse
import asyncio

import msgspec

from paqett import db
from paqett.cli.commands import JSON, Commands, arg, flag
from paqett.cli.output import say, write
from paqett.cli.running import plan_named, until_signal
from paqett.local import fleet, simulate, torture
from paqett.local.torture_report import Report, table
from paqett.settings import Settings


def register(commands: Commands) -> None:
    """Load to look at, and the kill test."""
    commands.add(
        "simulate", _simulate, "a fleet of devices over real MQTT",
        arg("--devices", type=int, default=50),
        arg("--rate", type=float, default=1.0, help="messages a second of each device"),
        arg("--seconds", type=float, default=None),
        arg("--accounts", type=int, default=2),
        arg("--plan", default="own"),
        arg("--name", default="demo"),
        arg("--ledger", default=None, help="file for every acknowledged reading"),
        flag("--remove", "remove the fleet and its accounts"),
    )  # fmt: skip
    usual, targets = torture.Options(), ",".join(torture.TARGETS)
    commands.add(
        "torture", _torture, "kill what runs here, count what was acknowledged",
        arg("--targets", default=",".join(usual.targets),
            help=f"some of {targets}, or a+b for both at once"),
        arg("--rounds", type=int, default=usual.rounds, help="kills"),
        arg("--devices", type=int, default=usual.devices),
        arg("--rate", type=float, default=usual.rate, help="as of simulate"),
        arg("--seed", type=int, help="kill in the same order again"),
        flag("--broker-may-lose",
             "a broker that acknowledges from memory may lose readings when it is killed"),
        flag("--keep", "leave the fleet and its readings"),
        JSON,
    )  # fmt: skip


def _simulate(settings: Settings, arguments: argparse.Namespace) -> int:
    async def run(settings: Settings, stop: asyncio.Event) -> None:
        plan = plan_named(settings, arguments.plan)
        async with await db.connect(settings.database, "simulate") as conn:
            if arguments.remove:
                await fleet.remove(conn, arguments.name)
                return
            devices_made = await fleet.create(
                conn, arguments.name, arguments.devices, arguments.accounts, plan
            )
        ledger = await simulate.run(
            devices_made, settings.agent.host, settings.agent.port, arguments.rate, stop,
            arguments.seconds, ledger_file=arguments.ledger,
        )  # fmt: skip
        say(f"published {ledger.published}, acknowledged {ledger.acknowledged}")

    asyncio.run(until_signal(run, settings))
    return 0


def _torture(settings: Settings, arguments: argparse.Namespace) -> int:
    options = torture.Options(
        targets=tuple(arguments.targets.split(",")), rounds=arguments.rounds,
        devices=arguments.devices, rate=arguments.rate, seed=arguments.seed,
        broker_may_lose=arguments.broker_may_lose, keep=arguments.keep,
    )  # fmt: skip
    reports: list[Report] = []

    async def run(settings: Settings, stop: asyncio.Event) -> None:
        plan = plan_named(settings, "own")
        reports.append(await torture.run(settings, plan, options, stop, say))

    asyncio.run(until_signal(run, settings))
    report = reports[0]
    write(msgspec.json.encode(report).decode() if arguments.json else table(report))
    return 0 if report.passed else 1
