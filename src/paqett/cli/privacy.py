"""`paqett privacy check`: whether what is promised to people is true of this deployment."""

import argparse
import asyncio

import msgspec

from paqett.app import services
from paqett.audit import report
from paqett.audit.report import Report
from paqett.cli.commands import JSON, Commands
from paqett.cli.output import write
from paqett.settings import Settings
from paqett.worker import privacy


def register(commands: Commands) -> None:
    """For operators and auditors."""
    actions = commands.group("privacy", "whether the privacy policy is kept")
    about = "hold what is really kept to the register and its periods; for operators and auditors"
    actions.add("check", _check, about, JSON)


def _check(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the report; 0 where everything passed, 1 where something did not."""
    found = asyncio.run(_checked(settings))
    write(msgspec.json.encode(found).decode() if arguments.json else report.text(found))
    return 0 if found.passed else 1


async def _checked(settings: Settings) -> Report:
    async with services(settings, "admin") as opened:
        return await privacy.check(opened)
