"""Columns of tables: their names at each cell, for phones, and the decimals their numbers share."""

import re
from collections.abc import Iterable
from math import floor, log10

from markupsafe import Markup, escape

_ROW = re.compile(r"<tr(?=[ >])")
_CELL = re.compile(r"<(td|th)(?=[ >])([^>]*)>(\s*</\1>)?")
_MOST_DECIMALS = 6


def labelled(rows: Markup, columns: list[str]) -> Markup:
    """Rows whose cells say what they are and of which column, also where a row is a list."""
    first, *rest = _ROW.split(rows)
    return Markup(first + "".join(f'<tr role="row"{_cells(row, columns)}' for row in rest))  # noqa: S704 - rows were escaped where they were made


def _cells(row: str, columns: list[str]) -> str:
    names = iter(columns)

    def told(found: re.Match[str]) -> str:
        tag, more, empty = found.groups(default="")
        name = next(names, "")
        label = "" if empty or not name or "colspan" in more else f' data-label="{escape(name)}"'
        return f'<{tag} role="{"cell" if tag == "td" else "rowheader"}"{label}{more}>{empty}'

    return _CELL.sub(told, row)


def decimals(values: Iterable[float | None]) -> int:
    """How many decimals show a column's numbers: all they have up to six, else four digits of
    the span between its lowest and its highest, which is what makes them different."""
    present = [value for value in values if value is not None]
    for count in range(_MOST_DECIMALS + 1):
        if all(round(value, count) == value for value in present):
            return count
    span = max(present) - min(present) or max(abs(value) for value in present)
    return min(_MOST_DECIMALS, max(0, 3 - floor(log10(span))))
