"""Mails from templates: one source for each mail, one layout, rendered as plain text and as HTML.

A mail in `mail_templates/mails/` extends `layout` and uses the parts of `parts`; both stand in
`text/` and in `html/`, so the words are written once and neither form can lack some.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent / "mail_templates"


class Rendered(msgspec.Struct, frozen=True):
    """A mail's words; `subject` is one line."""

    subject: str
    text: str
    html: str


@cache
def _environment(form: str) -> Environment:
    # plain text is no markup: autoescape would write &amp; into it
    made = Environment(
        loader=FileSystemLoader([_FOLDER / form, _FOLDER / "mails"]),
        autoescape=form == "html",  # noqa: S701 - it is on where there is markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["lasting"] = lasting
    return made


def render(template: str, **values: Any) -> Rendered:
    """The mail `template`, which must be given every value it names."""
    text = _environment("text").get_template(f"{template}.jinja")
    html = _environment("html").get_template(f"{template}.jinja")
    subject = "".join(text.blocks["subject"](text.new_context(values)))
    return Rendered(one_line(subject), _tidy(text.render(values)), html.render(values))


def one_line(text: str) -> str:
    """Without line ends and other control characters: fit for a header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _tidy(text: str) -> str:
    """At most one empty line in a row, none at either end."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for line, before in zip(lines, ["x", *lines], strict=False) if line or before]
    return "\n".join(kept) + "\n"


def local_time(moment: datetime, time_zone: str) -> str:
    """`25 November 2026, 14:05 CET`, in UTC where the zone is not known here."""
    try:
        local = moment.astimezone(ZoneInfo(time_zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return local_time(moment, "UTC")
    name = local.strftime("%Z")
    zone = f"UTC{name}" if name[:1] in "+-" else name
    return f"{local.day} {local:%B %Y, %H:%M} {zone}"


def lasting(seconds: float) -> str:
    """`7 days`, `24 hours`, `60 minutes`: in the largest unit of which there are several."""
    minutes = max(1, round(seconds / 60))
    for size, unit in ((1440, "days"), (60, "hours")):
        if minutes % size == 0 and minutes > size:
            return f"{minutes // size} {unit}"
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
