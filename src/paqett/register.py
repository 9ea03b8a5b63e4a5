"""The register of personal data: what is kept of people, why, how long, and how it ends.

It stands in `config/personal-data.toml`. The worker takes its periods from here, the export its
files, the erasure what it must look after itself, the pages what they show to people.
"""

import tomllib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal

import msgspec

from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.settings import config_dir
from paqett.sqlfiles import query

TIER = "{tier}"
"""Stands in a table's name for each tier's."""

Erased = Literal["itself", "cascade", "explicit", "period", "nothing"]
_UNNAMED_PERIODS = frozenset({"account", "tier", "expires", "always"})


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a table and a store have in common, in words for people.

    `kept` and `erased` are words of the file's head. With `readings` it may hold readings, and
    never outlives their tier's retention.
    """

    name: str
    about: str
    why: str
    kept: str
    erased: Erased
    readings: bool = False
    unexported: str | None = None


class Table(Entry, frozen=True, kw_only=True):
    """A table; `export` is the stem of its file in the archive, None where it has none.

    `withheld` are columns that are never exported, with the reason; `shorter` are columns that are
    cleared before their row goes, with the name of their period.
    """

    columns: dict[str, str]
    export: str | None = None
    withheld: dict[str, str] = {}
    shorter: dict[str, str] = {}

    def names(self, tiers: Iterable[str]) -> list[str]:
        """The table's names in a database with these tiers: one, or one for each."""
        if TIER not in self.name:
            return [self.name]
        return [self.name.replace(TIER, tier) for tier in tiers]


class Store(Entry, frozen=True, kw_only=True):
    """What is no table: files, other servers, a browser.

    `paths` are patterns below the data folder, `schemas` those of the database that belong to it;
    `made_by` is `module:name` of the code that makes it. `always`: every `paqett up` has it.
    """

    where: str
    made_by: str
    paths: list[str] = []
    schemas: list[str] = []
    always: bool = False

    def holds(self, path: str) -> bool:
        """Whether a path below the data folder is part of it."""
        return any(_matches(path, pattern) for pattern in self.paths)


class Register(msgspec.Struct, frozen=True):
    """Everything that is kept; `nothing` are tables without anything of anybody's."""

    periods: dict[str, timedelta]
    tables: dict[str, Table]
    nothing: dict[str, list[str]]
    views: dict[str, str]
    stores: dict[str, Store]

    def period(self, name: str) -> timedelta:
        """How long what has this name is kept. Raises `KeyError`."""
        return self.periods[name]

    @property
    def entries(self) -> list[Entry]:
        """Tables and stores, in the order of the file."""
        return [*self.tables.values(), *self.stores.values()]

    @property
    def schemas(self) -> list[str]:
        """Schemas of the database that are a store's, and not looked into."""
        return [schema for store in self.stores.values() for schema in store.schemas]


class Catalog(msgspec.Struct, frozen=True):
    """What a database really has: tables with their columns, views, what goes with an account."""

    tables: dict[str, list[str]]
    views: list[str]
    schemas: list[str]
    cascading: frozenset[str]
    tiers: list[str]


@cache
def load() -> Register:
    """The register. Raises `ConfigurationError` naming what is wrong with the file."""
    path = config_dir() / "personal-data.toml"
    try:
        return parse(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, TypeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None


def parse(text: str) -> Register:
    """A register from TOML. Raises `ValidationError`, `TOMLDecodeError`, `ConfigurationError`."""
    raw = tomllib.loads(text)
    periods = {name: timedelta(days=days) for name, days in raw.pop("periods").items()}
    named = {
        part: {name: {"name": name, **entry} for name, entry in raw.pop(part).items()}
        for part in ("tables", "stores")
    }
    register = msgspec.convert({"periods": periods, **named, **raw}, Register)
    for problem in _inconsistencies(register):
        raise ConfigurationError(problem)
    return register


def _inconsistencies(register: Register) -> Iterable[str]:
    """What the file says against itself."""
    used: set[str] = {"unconfirmed"}  # of accounts, and so of no table of its own
    for entry in register.entries:
        used.add(entry.kept)
        known = entry.kept in _UNNAMED_PERIODS or entry.kept in register.periods
        if not known and not entry.kept.startswith("setting "):
            yield f"{entry.name}: there is no period {entry.kept}"
        exported = isinstance(entry, Table) and entry.export is not None
        if exported == (entry.unexported is not None):
            yield f"{entry.name}: say either the file it is exported to, or why it is not"
    for table in register.tables.values():
        used.update(table.shorter.values())
        for column in {*table.withheld, *table.shorter} - table.columns.keys():
            yield f"{table.name}: {column} is none of its columns"
        for name in set(table.shorter.values()) - register.periods.keys():
            yield f"{table.name}: there is no period {name}"
    for name in register.periods.keys() - used:
        yield f"nothing is kept for the period {name}"


async def catalog(conn: Connection, register: Register) -> Catalog:
    """What the database really has, without what stands in a store's schemas."""
    values = {"others": register.schemas}
    relations = await (await conn.execute(query("unscoped_catalog_relations"), values)).fetchall()
    schemas = await (await conn.execute(query("unscoped_catalog_schemas"))).fetchall()
    cascades = await (await conn.execute(query("unscoped_catalog_cascades"))).fetchall()
    tiers = await (await conn.execute(query("unscoped_tiers"))).fetchall()
    return Catalog(
        {row["name"]: row["columns"] for row in relations if not row["is_view"]},
        [row["name"] for row in relations if row["is_view"]],
        [row["name"] for row in schemas],
        frozenset(row["name"] for row in cascades),
        [row["name"] for row in tiers],
    )


def differences(register: Register, found: Catalog) -> list[str]:
    """Where a database and the register differ, in sentences; none where all is well."""
    listed = {name: list(columns) for name, columns in register.nothing.items()}
    cascading = set()
    for table in register.tables.values():
        for name in table.names(found.tiers):
            listed[name] = list(table.columns)
            if table.erased == "cascade":
                cascading.add(name)
    return [
        *_missing("table", found.tables, listed),
        *_missing("view", found.views, register.views),
        *(
            f"the column {name}.{column} {said}"
            for name in sorted(found.tables.keys() & listed.keys())
            for said, columns in _columns(found.tables[name], listed[name])
            for column in columns
        ),
        *(
            f"the table {name} does not go with the account's row, as the register says"
            for name in sorted((cascading & found.tables.keys()) - found.cascading)
        ),
        *(
            f"the table {name} goes with the account's row; the register says otherwise"
            for name in sorted((found.cascading & listed.keys()) - cascading)
        ),
        *_missing("schema", found.schemas, [*register.schemas, *_own_schemas(found)], both=False),
    ]


def _own_schemas(found: Catalog) -> set[str]:
    """Schemas whose tables and views are looked at one by one."""
    return {"public", *(name.partition(".")[0] for name in (*found.tables, *found.views))}


def _missing(
    what: str, found: Iterable[str], listed: Iterable[str], *, both: bool = True
) -> list[str]:
    there, said = set(found), set(listed)
    unknown = [f"the {what} {name} is not in the register" for name in sorted(there - said)]
    gone = [f"the {what} {name} of the register does not exist" for name in sorted(said - there)]
    return unknown + (gone if both else [])


def _columns(found: Sequence[str], listed: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [
        ("is not in the register", sorted(set(found) - set(listed))),
        ("of the register does not exist", sorted(set(listed) - set(found))),
    ]


def unlisted(register: Register, paths: Iterable[str]) -> list[str]:
    """Paths below the data folder that are in no store."""
    stores = register.stores.values()
    return sorted(path for path in paths if not any(store.holds(path) for store in stores))


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return path.startswith(pattern.removesuffix("**"))
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def kept_words(register: Register, entry: Entry) -> str:
    """How long it is kept, for people."""
    words = _kept(register, entry.kept)
    if entry.readings and entry.kept != "tier":
        words += ", and no longer than your plan keeps readings"
    return words


def _kept(register: Register, kept: str) -> str:
    fixed = {
        "account": "until you delete your account",
        "tier": "as long as your plan keeps readings",
        "expires": "until it has served, some days at most",
        "always": "as long as this installation",
    }
    if kept in fixed:
        return fixed[kept]
    if kept.startswith("setting "):
        return f"as set by {kept.removeprefix('setting ')}"
    return f"{register.periods[kept].days} days"


ERASED_WORDS: dict[Erased, str] = {
    "itself": "with your account",
    "cascade": "with your account",
    "explicit": "with your account, by a step of its own",
    "period": "when its time is over: nothing in it leads to your account",
    "nothing": "nothing of yours is in it",
}
"""How it ends when an account is deleted, for people."""
