"""A command imports its own part of the program alone."""

import subprocess
import sys

import pytest

from paqett import cli
from reference import commands

NAMES = [name for names in cli._PARTS.values() for name in names]


def _first_words(of: str = "") -> set[str]:
    return {command.split()[1] for command, _, _ in commands(cli.parser(of))}


def test_every_command_is_listed_with_its_part() -> None:
    assert _first_words() == set(NAMES)
    assert _first_words("nonsense") == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_makes_the_commands_it_is_listed_with(name) -> None:
    (part,) = (names for names in cli._PARTS.values() if name in names)
    assert _first_words(name) == set(part)


@pytest.mark.parametrize(
    ("process", "others"),
    [
        ("ingest", {"litestar", "paqett.web.server", "paqett.worker"}),
        ("broker", {"litestar", "paqett.web.server", "paqett.worker", "paqett.ingest"}),
        ("worker", {"litestar", "paqett.web.server", "paqett.ingest"}),
        ("agent", {"litestar", "paqett.web.server", "paqett.worker", "paqett.readings"}),
    ],
)
def test_no_process_carries_the_code_of_the_others(process, others) -> None:
    module = {"agent": "paqett.local.agent"}.get(process, f"paqett.{process}.process")
    program = (
        "import sys\n"
        "from paqett import cli\n"
        f"cli.parser('{process}').parse_args(['{process}'])\n"
        f"import {module}\n"
        f"print(sorted({others!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
