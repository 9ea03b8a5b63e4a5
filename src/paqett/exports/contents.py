"""The files of an archive that are rows of tables: one for each that the register exports.

Everything of an archive is read in short transactions on one held snapshot, so that it is of one
moment and yet no table stays locked: retention, moves and erasure go on beside it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from paqett.db import Connection
from paqett.exports.archive import Description
from paqett.register import Register, Table, kept_words
from paqett.sqlfiles import query

Transaction = Callable[[], AbstractAsyncContextManager[Connection]]
NUMBERS, TEXTS = "telemetry_{tier}", "telemetry_{tier}_text"
_READING = {
    "time": "when it was measured",
    "device": "the device's id",
    "metric": "the metric's name",
    "value": "what was measured",
}
_ROWS = 2000


def tables(register: Register) -> list[Table]:
    """Every table with a file, but for the readings'."""
    return [
        table
        for table in register.tables.values()
        if table.export is not None and table.name not in (NUMBERS, TEXTS)
    ]


def query_name(table: Table) -> str:
    """The query that gives the rows of its file."""
    return f"archive_{table.export}"


def describe(register: Register, table: Table) -> Description:
    """The table's file."""
    columns = {name: about for name, about in table.columns.items() if name not in table.withheld}
    if table.name in (NUMBERS, TEXTS):
        columns = _READING
    return Description(
        str(table.export), table.about, table.why, kept_words(register, table), columns,
        table.withheld,
    )  # fmt: skip


async def rows(
    begin: Transaction, account_id: int, table: Table
) -> AsyncIterator[list[dict[str, Any]]]:
    """The account's rows of a table, some at a time."""
    async with begin() as conn, conn.cursor(name="archive") as cursor:
        await cursor.execute(query(query_name(table)), {"account": account_id})
        while found := await cursor.fetchmany(_ROWS):
            yield found
