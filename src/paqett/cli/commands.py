"""How a command is registered: its name, what runs it, the words of its help, what it takes."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from paqett.settings import Settings

Run = Callable[[Settings, argparse.Namespace], int]


class Argument(NamedTuple):
    """What argparse's `add_argument` is called with."""

    names: tuple[str, ...]
    options: dict[str, Any]


def arg(*names: str, **options: Any) -> Argument:
    """An argument or a flag, in argparse's own words."""
    return Argument(names, options)


def flag(name: str, about: str) -> Argument:
    """A flag that is there or not."""
    return arg(name, action="store_true", help=about)


JSON = flag("--json", "print JSON")
ACCOUNT = arg("account", help="id or e-mail")
"""The account that `running.with_account` finds."""


class Commands:
    """The commands of one level: `paqett NAME`, or `paqett admin NAME`."""

    def __init__(self, parser: argparse.ArgumentParser, dest: str, metavar: str) -> None:
        self._below = parser.add_subparsers(dest=dest, required=True, metavar=metavar)

    def add(self, name: str, run: Run, about: str, *arguments: Argument) -> None:
        """A command; `run` answers with its exit code."""
        command = self._below.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        for argument in arguments:
            command.add_argument(*argument.names, **argument.options)

    def group(self, name: str, about: str) -> "Commands":
        """Further commands under one name; which of them was typed is `arguments.action`."""
        return Commands(self._below.add_parser(name, help=about), dest="action", metavar="ACTION")


def positive(text: str) -> int:
    """An argument from 1 to 100,000. Raises `ValueError`."""
    number = int(text)
    if not 1 <= number <= 100_000:
        raise ValueError
    return number
