"""The one command, `paqett`. Data goes to standard output, messages to standard error.

Exit codes: 0 done, 1 it went wrong, 2 the command line or the settings are wrong.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from importlib import import_module

import msgspec
import psycopg

from paqett import __version__, log
from paqett.cli.commands import Commands
from paqett.cli.output import say
from paqett.errors import ConfigurationError, PaqettError
from paqett.local import state
from paqett.settings import Settings, load

# a command imports its own part alone: the whole program takes a second and 40 MB more
_PARTS = {
    "processes": ("api", "ingest", "worker", "broker", "agent"),
    "deployment": ("migrate", "doctor", "up"),
    "fleets": ("simulate", "torture"),
    "telemetry": ("query", "export"),
    "admin": ("admin",),
    "devices": ("device",),
    "privacy": ("privacy",),
}
_ON_WHAT_RUNS_HERE = ("admin", "device", "doctor", "privacy", "simulate")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(*words[:1]).parse_args(_with_times(words))
    try:
        settings = _here(load(), arguments.command)
        log.configure(settings.log.level, settings.log.format, arguments.command)
        return int(arguments.run(settings, arguments) or 0)
    except ConfigurationError as error:
        say(str(error))
        return 2
    except (PaqettError, psycopg.Error, OSError) as error:
        say(str(error).strip() or type(error).__name__)
        return 1


def parser(command: str = "") -> argparse.ArgumentParser:
    """Every command, in the order in which `--help` shows them, or those beside `command`."""
    whole = argparse.ArgumentParser(prog="paqett", description="Multi-tenant IoT telemetry.")
    whole.add_argument("--version", action="version", version=f"paqett {__version__}")
    commands = Commands(whole, dest="command", metavar="COMMAND")
    parts = [part for part, names in _PARTS.items() if command in names] or _PARTS
    for part in parts:
        import_module(f"paqett.cli.{part}").register(commands)
    return whole


def _with_times(words: Iterable[str]) -> list[str]:
    """`--from -7d` as `--from=-7d`: argparse takes whatever begins with a dash for a flag."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--from", "--to") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _here(settings: Settings, command: str) -> Settings:
    """What runs here by `paqett up` is meant where no database is named."""
    if settings.database.url or command not in _ON_WHAT_RUNS_HERE:
        return settings
    if not (settings.data_dir / "up.json").exists():
        return settings
    here, change = state.load(settings.data_dir.resolve()), msgspec.structs.replace
    return change(
        settings,
        database=change(settings.database, url=here.database_url),
        mqtt=change(settings.mqtt, port=here.platform_port, password=here.broker_password),
        broker=change(settings.broker, listen_port=here.mqtt_port),
    )
