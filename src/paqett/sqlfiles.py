"""SQL stays in `.sql` files; Python calls a query by its name.

A file in `sql/queries/` holds queries of one subject. Each begins with `-- name: its_name`, then a
comment line with its reason, then one statement with `%(parameter)s` placeholders. `{tier}`,
`{tier_text}`, `{other}`, `{other_text}` and `{readings}` are the only composed parts: identifiers
that come from the table `tier`. `{readings}` is `{tier}` or `{tier_text}`, in a query of either.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, LiteralString

import msgspec
from psycopg import sql

from paqett.settings import sql_dir

ReadingForm = Literal["numbers", "texts"]
"""In which of a tier's two hypertables a reading stands; booleans are numbers."""
READING_FORMS: tuple[ReadingForm, ...] = ("numbers", "texts")
_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Query(msgspec.Struct, frozen=True):
    """A named statement: `reason` is its comment, `text` the SQL."""

    name: str
    reason: str
    text: LiteralString
    file: str


@cache
def queries() -> dict[str, Query]:
    """Every named query. Raises `ValueError` for a name given twice or a missing reason."""
    found: dict[str, Query] = {}
    for path in sorted((sql_dir() / "queries").glob("*.sql")):
        for entry in _parse(path):
            if entry.name in found:
                raise ValueError(f"{path.name}: the query {entry.name} stands twice")
            found[entry.name] = entry
    return found


def _parse(path: Path) -> list[Query]:
    parts = _HEAD.split(path.read_text())
    return [
        _query(path.name, name, body) for name, body in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _query(file: str, name: str, body: str) -> Query:
    lines = body.strip().splitlines()
    reason = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    text = "\n".join(line for line in lines if not line.startswith("--")).strip()
    if not reason or not text:
        raise ValueError(f"{file}: the query {name} lacks its reason or its statement")
    return Query(name, " ".join(reason), text, file)


@cache
def query(name: str) -> LiteralString:
    """The statement called `name`. Raises `KeyError`."""
    return queries()[name].text


def readings_table(tier: str, form: ReadingForm) -> str:
    """The hypertable's name."""
    return f"telemetry_{tier}{'_text' if form == 'texts' else ''}"


@cache
def tier_query(
    name: str, tier: str, other: str | None = None, *, form: ReadingForm = "numbers"
) -> sql.Composed:
    """The statement called `name` for one tier, or two while a move is open.

    The names come from the table `tier`.
    """
    other = other or tier
    return sql.SQL(query(name)).format(
        tier=sql.Identifier(readings_table(tier, "numbers")),
        tier_text=sql.Identifier(readings_table(tier, "texts")),
        other=sql.Identifier(readings_table(other, "numbers")),
        other_text=sql.Identifier(readings_table(other, "texts")),
        readings=sql.Identifier(readings_table(tier, form)),
    )


def array(values: Iterable[float | None]) -> str:
    """Numbers as PostgreSQL writes an array of them; psycopg's own arrays cost 25 times as much."""
    return f"{{{','.join(map(_element, values))}}}"


def word_array(values: Iterable[str]) -> str:
    """The same for words without quotes and backslashes, such as device ids."""
    return f'{{"{joined}"}}' if (joined := '","'.join(values)) else "{}"


def _element(value: float | None) -> str:
    return "NULL" if value is None else str(value)


def script(*parts: str) -> LiteralString:
    """The text of one file under `sql/`, for the migrations."""
    return sql_dir().joinpath(*parts).read_text()
