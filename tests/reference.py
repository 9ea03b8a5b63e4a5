"""The pages of the docs that say what the program itself knows; `make reference` writes them.

`api.md` comes from the handlers, `cli.md` from the parser, `settings.md` from `config/paqett.toml`.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from litestar.routes import HTTPRoute

from paqett import cli
from paqett.app import Services
from paqett.plans import load_plans
from paqett.settings import load
from paqett.web.server import create_app

ROOT = Path(__file__).parents[1]
_SECTION = re.compile(r"^\[(\w+)\] *(?:# *(.*))?$")
_SETTING = re.compile(r"^(\w+) = (\"[^\"]*\"|[^#]*?) *(?:# (.*))?$")
_METHODS = ("get", "post", "put", "patch", "delete")

_SETTINGS = """# Settings

One file, `config/paqett.toml`, has every setting with its default. A file that `PAQETT_CONFIG`
names overrides it, the environment overrides both: `http.port` is `PAQETT_HTTP__PORT`. For a
secret, `PAQETT_MAIL__SMTP_PASSWORD_FILE` names a file to read it from. A key that is not listed
here refuses to start. `config/plans.toml` has the plans ([billing.md](billing.md)); how long
readings are kept stands in `sql/policies/` ([tiers.md](tiers.md)).

This page is made of that file by `make reference`.
"""
_CLI = """# Command line

Data goes to standard output, messages to standard error. Exit codes: 0 done, 1 it went wrong, 2
the command line or the settings are wrong. `--json` prints for programs. Settings come from the
[environment and a file](settings.md); `admin`, `device`, `doctor`, `privacy` and `simulate` find
the database of a `paqett up` in the same folder by themselves, `query` and `export` its API.

This page is made of the command's own help by `make reference`.
"""
_API = """# HTTP API

Under `/api/v1` and described for programs at `/schema` (OpenAPI 3.1). Bodies and answers are JSON
unless said otherwise; lists are `{"items", "next_cursor"}`; refusals are problems with a stable
[code](errors.md). *Who* is the scope of an API key (`Authorization: Bearer pqt_…`); a signed-in
person may do all of it, but for a device's own. `session` is for people alone, `device` for a
device's own id and secret, `anybody` needs nothing ([accounts.md](accounts.md)). What a call
takes in detail: [sending readings](ingest.md), [reading them](queries.md), [alerts](alerts.md),
[Grafana](grafana.md), [plans](billing.md), [exports](privacy.md), [deletion](erasure.md).

At the root: `/healthz` says that the process runs, `/readyz` that it can do its work, `/metrics`
what it did (Prometheus; on the operator's listener, or with a token).

This page is made of the handlers by `make reference`.
"""


def pages() -> dict[str, str]:
    """Each page's name and text."""
    return {"api.md": _api(), "cli.md": _cli(), "settings.md": _settings()}


def settings() -> Iterator[tuple[str, str, str, str]]:
    """Each setting's section, key, default as TOML, and words."""
    for section, _, lines in _sections():
        for key, default, words in lines:
            yield section, key, default, words


def _sections() -> list[tuple[str, str, list[list[str]]]]:
    """Each section, its words, and key, default and words of its settings; a comment goes on
    in the lines that hold nothing but more of it.
    """
    found: list[tuple[str, str, list[list[str]]]] = []
    for line in (ROOT / "config" / "paqett.toml").read_text().splitlines():
        if section := _SECTION.match(line):
            found.append((section[1], section[2] or "", []))
        elif setting := _SETTING.match(line):
            found[-1][2].append([setting[1], setting[2], setting[3] or ""])
        elif line.startswith("  ") and found:
            found[-1][2][-1][2] += " " + line.strip(" #")
    return found


def _settings() -> str:
    parts = [_SETTINGS]
    for section, about, lines in _sections():
        rows = [[f"`{section}.{key}`", f"`{value}`", words] for key, value, words in lines]
        words = f"{about}\n\n" if about else ""
        parts.append(f"\n## {section}\n\n{words}{_table(['setting', 'default', ''], rows)}")
    return "".join(parts)


def commands(
    parser: argparse.ArgumentParser | None = None, name: str = "paqett"
) -> Iterator[tuple[str, str, list[argparse.Action]]]:
    """Each command's name, what it does, and what it takes."""
    for choice, command, about in _below(parser or cli.parser()):
        if any(_below(command)):
            yield from commands(command, f"{name} {choice}")
        else:
            own = [action for action in command._actions if action.dest != "help"]
            yield f"{name} {choice}", about, own


def _below(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield name, command, words[name]


def _cli() -> str:
    parts = [_CLI]
    for name, about, actions in commands():
        usage = " ".join([name, *map(_usage, actions)])
        parts.append(f"\n## {name}\n\n{about[:1].upper()}{about[1:]}.\n\n    {usage}\n")
        rows = [
            [f"`{_named(action)}`", _flag_words(action)]
            for action in actions
            if action.help and action.dest != "json"
        ]
        if rows:
            parts.append(f"\n{_table(['', ''], rows)}")
    return "".join(parts)


def _usage(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return {"*": f"[{value} …]", "?": f"[{value}]"}.get(str(action.nargs), value)
    text = " ".join(filter(None, (action.option_strings[0], value)))
    return text if action.required else f"[{text}]"


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest).upper()


def _named(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else _value(action)


def _flag_words(action: argparse.Action) -> str:
    usual = action.default
    shown = action.nargs == 0 or usual is None or "default" in (action.help or "")
    return f"{action.help}" if shown else f"{action.help} (default: {usual})"


def operations() -> Iterator[tuple[str, str, str, str, str]]:
    """Each operation's part of the API, method, path, words, and who may."""
    usual = load({})
    bare = SimpleNamespace(settings=usual, plans=load_plans(usual.plans_file), pool=None)
    app = create_app(cast("Services", bare))
    document: dict[str, Any] = app.openapi_schema.to_schema()
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path_format in document["paths"]:
            for method in _METHODS:
                operation = document["paths"][route.path_format].get(method)
                if operation is not None:
                    handler, _ = route.route_handler_map[cast("Any", method.upper())]
                    words = " ".join((handler.fn.__doc__ or "").partition("\n\n")[0].split())
                    who = " ".join(_who(operation["security"]))
                    yield operation["tags"][0], method.upper(), route.path_format, words, who


def _who(security: list[dict[str, list[str]]]) -> Iterator[str]:
    for one in security:
        if "apiKey" in one:
            yield from one["apiKey"]
        elif "device" in one:
            yield "device"
        elif "session" in one and not any("apiKey" in other for other in security):
            yield "session"
        elif not one:
            yield "anybody"


def _api() -> str:
    parts: dict[str, list[list[str]]] = {}
    for part, method, path, words, who in operations():
        parts.setdefault(part, []).append([f"`{method} {path}`", words, f"`{who}`"])
    tables = [
        f"\n## {part[:1].upper()}{part[1:]}\n\n{_table(['call', '', 'who'], rows)}"
        for part, rows in parts.items()
    ]
    return "".join([_API, *tables])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *cells]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


if __name__ == "__main__":
    for page, text in pages().items():
        (ROOT / "docs" / page).write_text(text)
