"""The versions of the privacy policy, as they are shipped: which is in force, and what it changed.

A version is a file of `web/templates/privacy/`, named after the day it came into force; the first
is the text from before there were days. When the words change, a file is added and none is edited.
Its first comment says in one paragraph what changed: every account is told that.
"""

import re
from pathlib import Path

import msgspec

from paqett.errors import ConfigurationError

FOLDER = Path(__file__).parent / "web/templates/privacy"
FIRST = "1"
"""The version of which no day is known."""
LONGEST_CHANGE = 500
"""How many characters what changed may have: a notice holds no more."""
_CHANGED = re.compile(r"\{# changed: (.+?) #\}", re.DOTALL)


class Version(msgspec.Struct, frozen=True):
    """`day` is its name, as `2026-11-25`; `changed` one paragraph about the version before it."""

    day: str
    changed: str


def versions() -> list[str]:
    """Newest first."""
    dated = sorted((path.stem for path in FOLDER.glob("*.html")), reverse=True)
    return [*dated, FIRST]


def in_force_day() -> str:
    """The newest version's name: what a new account accepts."""
    return versions()[0]


def in_force() -> Version:
    """The newest version. Raises `ConfigurationError` where it does not say what changed."""
    return read(in_force_day())


def read(day: str) -> Version:
    """A version that has a day. Raises `ConfigurationError` where it does not say what changed."""
    found = _CHANGED.search((FOLDER / f"{day}.html").read_text())
    changed = "" if found is None else " ".join(found[1].split())
    if not 0 < len(changed) <= LONGEST_CHANGE:
        raise ConfigurationError(
            f"the privacy policy {day} must say what changed, in {LONGEST_CHANGE} characters"
        )
    return Version(day, changed)
