"""`paqett privacy check`: whether what is promised to people is true of this deployment."""

import argparse
import asyncio

import msgspec

from paqett.app import services
from paqett.audit import report
from paqett.audit.report import Report
from paqett.settings import Settings
from paqett.worker import privacy


def check(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the report; 0 where everything passed, 1 where something did not."""

    async def run() -> Report:
        async with services(settings, "admin") as opened:
            return await privacy.check(opened)

    found = asyncio.run(run())
    shown = msgspec.json.encode(found).decode() if arguments.json else report.text(found)
    print(shown)  # noqa: T201 - what the command is for
    return 0 if found.passed else 1
