"""`paqett migrate`, `doctor` and `up`: a whole deployment."""

import argparse
import asyncio

import msgspec
import psycopg

from paqett import db, doctor, migrate, roles
from paqett.app import utc_now
from paqett.cli.commands import JSON, Commands, flag
from paqett.cli.output import say, show
from paqett.cli.running import until_signal
from paqett.doctor.others import examine_others
from paqett.doctor.tls import examine_tls
from paqett.doctor.users import examine_users
from paqett.local import up
from paqett.plans import load_plans
from paqett.settings import Settings


def register(commands: Commands) -> None:
    """What makes a deployment, and looks at it."""
    commands.add("migrate", _migrate, "bring the database to this program's schema")
    commands.add("doctor", _doctor, "examine this deployment", JSON)
    commands.add(
        "up", _up, "run everything on this machine",
        flag("--lan", "let boards on the local network in"),
        flag("--demo", "sell plans, by a fake Stripe"),
        flag("--stop", "stop what runs here"),
    )  # fmt: skip


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    applied = asyncio.run(_migrated(settings))
    say(f"applied {', '.join(applied)}" if applied else "the schema is current")
    return 0


async def _migrated(settings: Settings) -> list[str]:
    async with await db.connect(settings.database, "migrate", autocommit=True) as conn:
        applied = await migrate.migrate(conn, migrate.Patience.of(settings.database))
        await roles.set_passwords(conn, _role_passwords(settings))
        return applied


def _role_passwords(settings: Settings) -> dict[str, str]:
    named = msgspec.structs.asdict(settings.roles)
    return {name.removesuffix("_password"): password for name, password in named.items()}


def _doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    findings = asyncio.run(_examined(settings))
    show(findings, as_json=arguments.json)
    return int(any(finding.state == "failed" for finding in findings))


async def _examined(settings: Settings) -> list[doctor.Finding]:
    found = [*doctor.examine_machine(settings), *examine_tls(settings, utc_now())]
    found.append(examine_users(settings))
    try:
        async with await db.connect(settings.database, "doctor") as conn:
            found += await doctor.examine_server(conn, utc_now())
            found += await doctor.examine(conn, utc_now())
    except (psycopg.OperationalError, OSError) as error:
        mend = "start it, or set PAQETT_DATABASE__URL"
        found.append(doctor.Finding("database", "failed", str(error).strip(), mend))
    plans = load_plans(settings.plans_file).values()
    return found + await examine_others(settings, plans, utc_now)


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.stop:
        say("stopped" if up.stop_running(settings) else "nothing runs here")
        return 0

    async def run(settings: Settings, stop: asyncio.Event) -> None:
        await up.run(settings, stop, lan=arguments.lan, demo=arguments.demo)

    asyncio.run(until_signal(run, settings))
    return 0
