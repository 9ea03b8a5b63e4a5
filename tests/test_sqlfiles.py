"""Every query is used, is understood by the database, and names its account or says why not."""

import re
from pathlib import Path

import psycopg
import pytest

from paqett import register, sqlfiles
from paqett.exports import contents
from paqett.sqlfiles import Query

SOURCE = "\n".join(path.read_text() for path in (Path(__file__).parents[1] / "src").rglob("*.py"))
QUERIES = list(sqlfiles.queries().values())
ARCHIVED = {contents.query_name(table) for table in contents.tables(register.load())}
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_is_used_somewhere(query: Query) -> None:
    # a name may be put together from its form: copy_numbers is asked for as copy_{form}
    stem = re.sub(r"(numbers|texts|asc|desc)$", "", query.name)
    assert f'"{query.name}"' in SOURCE or f'"{stem}{{form}}"' in SOURCE or query.name in ARCHIVED


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_names_its_account_or_says_that_it_does_not(query: Query) -> None:
    named = re.search(r"account(_id|s)?\b", query.text + query.reason) is not None
    assert named or query.name.startswith(("unscoped_", "lock_"))
    assert len(query.reason) > 20


# a derived table may be taken whole: its columns stand in the same statement
_WHOLE_TABLE = re.compile(
    r"RETURNING \*|SELECT \* FROM (?!unnest)[a-z]"
    r"|(\w+)\.\*(?=.*\b(?:FROM|JOIN) (?:\w+ AS )?\1\b)",
    re.DOTALL,
)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_names_its_columns(query: Query) -> None:
    """A prepared statement whose result changes under it fails: a migration may add a column."""
    assert _WHOLE_TABLE.search(query.text) is None


def _can_be_prepared(query: Query) -> bool:
    """Neither COPY nor about a temporary table: tests of writing and of torture run these."""
    return not query.text.startswith(("COPY", "CREATE", "DROP")) and "staged_" not in query.text


@pytest.mark.parametrize(
    "query", [one for one in QUERIES if _can_be_prepared(one)], ids=lambda query: query.name
)
def test_the_database_understands_a_query(query: Query, understanding: psycopg.Connection) -> None:
    numbers = iter(range(1, 100))
    seen: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in seen:
            seen[name] = next(numbers)
        return f"${seen[name]}"

    text = _PLACEHOLDER.sub(number, query.text).replace("%%", "%")
    tables = {"tier": "telemetry_own", "tier_text": "telemetry_own_text"}
    tables |= {"other": "telemetry_free", "other_text": "telemetry_free_text"}
    for name, table in tables.items():
        text = text.replace(f"{{{name}}}", table)
    for form in sqlfiles.READING_FORMS if "{readings}" in text else sqlfiles.READING_FORMS[:1]:
        whole = text.replace("{readings}", sqlfiles.readings_table("own", form))
        understanding.execute(f"PREPARE it AS {whole}")
        understanding.execute("DEALLOCATE it")


@pytest.fixture(scope="module")
def understanding(server_url: str, template: str):  # type: ignore[no-untyped-def]
    """A connection to a migrated database, for PREPARE alone."""
    import uuid

    from support import at, create, drop

    name = f"paqett_prepare_{uuid.uuid4().hex[:8]}"
    create(server_url, name, template)
    with psycopg.connect(at(server_url, name), autocommit=True) as conn:
        yield conn
    drop(server_url, name)


def test_two_queries_may_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queries").mkdir()
    for name in ("a", "b"):
        (tmp_path / "queries" / f"{name}.sql").write_text("-- name: same\n-- A reason.\nSELECT 1;")
    monkeypatch.setattr(sqlfiles, "sql_dir", lambda: tmp_path)
    sqlfiles.queries.cache_clear()
    with pytest.raises(ValueError, match="stands twice"):
        sqlfiles.queries()
    monkeypatch.undo()
    sqlfiles.queries.cache_clear()
