"""What the command says: data on standard output, messages on standard error."""

import json
import sys
from typing import Any

import msgspec


def say(text: str) -> None:
    """A message."""
    print(f"paqett: {text}", file=sys.stderr)  # noqa: T201 - the command's own voice


def write(text: str) -> None:
    """A line of data, or several."""
    print(text)  # noqa: T201 - what the command is for


def show(data: Any, *, as_json: bool) -> None:
    """One struct or a list of them: JSON, else a line each of `key=value`."""
    plain = msgspec.to_builtins(data)
    if as_json:
        write(json.dumps(plain))
        return
    for row in plain if isinstance(plain, list) else [plain]:
        write("  ".join(f"{key}={value}" for key, value in row.items()))
