"""The code blocks of README.md and docs/, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "


class Block(msgspec.Struct, frozen=True):
    """A fenced block; `where` is its page and line."""

    page: str
    where: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Every fenced block of every page, or those in certain languages."""
    return [
        one for path in PAGES for one in _of(path) if not languages or one.language in languages
    ]


def _of(path: Path) -> Iterator[Block]:
    text, page = path.read_text(), str(path.relative_to(ROOT))
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        yield Block(page, f"{page}:{line}", found[1], found[2])


def without_blocks(path: Path) -> str:
    """A page's text between its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def commands(block: Block) -> Iterator[str]:
    """Each command, over as many lines as it takes; of a session at a console what was typed."""
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix(_PROMPT) for line in lines if line.startswith((_PROMPT, "> "))]
    held = ""
    for line in lines:
        held += line
        if _whole(held):
            yield held
            held = ""
        else:
            held += "\n"
    assert not held.strip(), f"{block.where}: a command without an end: {held}"


def _whole(text: str) -> bool:
    """Whether the shell would run it now: quotes, braces and loops are closed."""
    if text.endswith("\\"):
        return False
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return False
    closed = words.count("do") + words.count("for") == 2 * words.count("done")
    return closed and words.count("{") == words.count("}") + words.count("};")


def words(command: str) -> list[str]:
    """The command's words, without comments."""
    return shlex.split(command.replace("\\\n", " "), comments=True)
