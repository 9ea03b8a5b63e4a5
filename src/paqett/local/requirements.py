"""Print what Paqett itself needs of a constraints file with hashes: run by install.sh."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRAS = re.compile(r"^[A-Za-z0-9._-]+\s*\[([^\]]+)\]")
_OF_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def needed(root: str) -> set[str]:
    """The names of everything `root` needs here, by what the installed packages say of themselves.

    Markers of platforms are not judged: what they leave out is not installed, and falls away.
    """
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(root, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in _installed(name):
            extra = _OF_EXTRA.search(line)
            if extra and extra[1] not in extras:
                continue
            asked = _EXTRAS.match(line)
            more = frozenset(part.strip() for part in asked[1].split(",")) if asked else frozenset()
            waiting.append((canonical(_NAME.match(line)[0]), more))  # type: ignore[index]
    return {name for name, _ in seen}


def _installed(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks(constraints: str) -> Iterator[tuple[str, str]]:
    """Each pinned package, and its lines with the hashes."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", constraints):
        if "==" in block:
            yield canonical(_NAME.match(block)[0]), block.rstrip()  # type: ignore[index]


if __name__ == "__main__":
    names = needed("paqett")
    for name, block in blocks(Path(sys.argv[1]).read_text()):
        if name in names:
            sys.stdout.write(f"{block}\n")
