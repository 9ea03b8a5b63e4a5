"""A batch's rows into the tiers' hypertables.

The plain path is one COPY for each tier touched. A duplicate fails a whole COPY, so then the same
rows go through a staging table and `INSERT … ON CONFLICT DO NOTHING`: the first reading of a
(series, time) stays and the neighbours lose nothing. Once a batch had duplicates the next ones are
staged at once, until some of them had none.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from psycopg import AsyncCopy, errors

from paqett.db import Connection
from paqett.readings import rows
from paqett.readings.batch import Batch, Where
from paqett.readings.directory import Directory
from paqett.readings.incoming import Outcome
from paqett.readings.live import Feed
from paqett.readings.plain import Columns
from paqett.readings.rows import Numbers, TextRow
from paqett.sqlfiles import query, tier_query

# So that the database begins early, and nobody else waits for long: what arrives meanwhile lies in
# the broker.
_STREAMED_ROWS = 2048
_DOUBT = 20  # flushes staged without need cost less than one COPY that fails


async def stream(
    conn: Connection, directory: Directory, batch: Batch, outcome: Outcome, feed: Feed | None
) -> None:
    """Read the batch; what is plain and of its main tier is copied while the rest is being read.

    So the database works on rows while the next ones are decoded. What cannot be stored this way
    is left in the batch.
    """
    tier = batch.main_tier()
    if tier is None or directory.doubt:
        batch.read()
        return
    where: Where = (tier, None)
    more = batch.read(where, _STREAMED_ROWS)
    if not more:
        return
    parts: list[Columns] = []
    copied: list[Numbers] = []
    try:
        async with _copying(conn, tier, "numbers") as target:
            await target.write(rows.HEADER)
            while True:
                parts.append(batch.take(where))
                copied.append(rows.sort_numbers(parts[-1]))
                await target.write(_packed(copied[-1], batch))
                if not more:
                    break
                await asyncio.sleep(0)
                more = batch.read(where, _STREAMED_ROWS)
            await target.write(rows.TRAILER)
    except errors.UniqueViolation:
        directory.doubt = _DOUBT
        batch.read()
        batch.put_back(where, parts)
        return
    if feed is not None:
        for found in copied:
            feed.numbers(found)
    if batch.judged:
        batch.seen_numbers += copied
    again = [pair for found in copied for pair in found.again]
    _count(batch, outcome, sum(len(part.series) for part in parts), again)
    outcome.measured_us += [part.times for part in parts]


async def store(
    conn: Connection, directory: Directory, batch: Batch, outcome: Outcome, feed: Feed | None
) -> None:
    """What has been read and placed, tier by tier; it is taken out of the batch."""
    for where in sorted(batch.columns, key=str):
        await _store_numbers(conn, directory, where, batch, outcome, feed)
    for where in sorted(batch.texts, key=str):
        await _store_texts(conn, directory, where, batch, outcome, feed)


def _packed(found: Numbers, batch: Batch) -> bytes:
    accounts = batch.accounts[found.numbers]
    return rows.pack_numbers(found.series, found.times, accounts, found.values)


async def _store_numbers(
    conn: Connection, directory: Directory, where: Where, batch: Batch, outcome: Outcome,
    feed: Feed | None,
) -> None:  # fmt: skip
    columns = batch.take(where)
    if not columns.series:
        return
    found = rows.sort_numbers(columns)
    stored = await _copy(conn, directory, where, "numbers", _packed(found, batch))
    if feed is not None:
        feed.numbers(found, stored)
    again = found.again if stored is None else [*found.again, *_not_in(stored, found)]
    _count(batch, outcome, len(columns.series), again)
    outcome.measured_us.append(found.times)
    if batch.judged:
        batch.seen_numbers.append(found if stored is None else _without(found, stored))


def _count(batch: Batch, outcome: Outcome, came: int, again: list[tuple[int, int]]) -> None:
    """So many points came, of which these, (message, time in µs), were there already."""
    batch.note_duplicates(again)
    outcome.stored += came - len(again)
    outcome.duplicates += len(again)


def _without(found: Numbers, stored: set[tuple[int, int]]) -> Numbers:
    """The rows that are new: what was there already has been judged."""
    identities = zip(found.series.tolist(), found.times.tolist(), strict=True)
    new = np.fromiter((identity in stored for identity in identities), bool, len(found.series))
    return Numbers(
        found.series[new], found.times[new], found.values[new], found.numbers[new], found.again
    )


def _not_in(stored: set[tuple[int, int]], found: Numbers) -> list[tuple[int, int]]:
    identities = zip(found.series.tolist(), found.times.tolist(), strict=True)
    return [
        (number, identity[1])
        for number, identity in zip(found.numbers.tolist(), identities, strict=True)
        if identity not in stored
    ]


async def _store_texts(
    conn: Connection, directory: Directory, where: Where, batch: Batch, outcome: Outcome,
    feed: Feed | None,
) -> None:  # fmt: skip
    came: list[TextRow] = batch.texts.pop(where)
    kept, again = rows.sort_texts(came)
    data = rows.pack_texts(kept, batch.accounts.tolist())
    stored = await _copy(conn, directory, where, "texts", data)
    if feed is not None:
        feed.texts(kept, stored)
    if stored is not None:
        again += [(row[2], row[1]) for row in kept if row[:2] not in stored]
    _count(batch, outcome, len(came), again)
    if batch.judged:
        batch.seen_texts += kept


@asynccontextmanager
async def _copying(conn: Connection, tier: str, form: str) -> AsyncIterator[AsyncCopy]:
    """Rows straight into a tier, all or none. Raises `UniqueViolation` at its end."""
    async with (
        conn.transaction(),
        conn.cursor() as cursor,
        cursor.copy(tier_query(f"copy_{form}", tier)) as target,
    ):
        yield target


async def _copy(
    conn: Connection, directory: Directory, where: Where, form: str, data: bytes
) -> set[tuple[int, int]] | None:
    """Store packed rows; None when every row went in, else the (series, µs) of those that did."""
    tier, moving_from = where
    data = b"".join((rows.HEADER, data, rows.TRAILER))
    if moving_from is None and not directory.doubt:
        try:
            async with _copying(conn, tier, form) as target:
                await target.write(data)
        except errors.UniqueViolation:
            directory.doubt = _DOUBT
        else:
            return None
    elif directory.doubt:
        directory.doubt -= 1
    return await _stage(conn, where, form, data)


async def _stage(conn: Connection, where: Where, form: str, data: bytes) -> set[tuple[int, int]]:
    tier, moving_from = where
    async with conn.transaction(), conn.cursor() as cursor:
        await cursor.execute(query(f"unscoped_stage_{form}"))
        async with cursor.copy(query(f"copy_staged_{form}")) as target:
            await target.write(data)
        if moving_from is not None:
            await cursor.execute(tier_query(f"drop_moved_{form}", moving_from))
        await cursor.execute(tier_query(f"insert_staged_{form}", tier))
        stored: list[Any] = await cursor.fetchall()
        await cursor.execute(query(f"unscoped_unstage_{form}"))
    return {(row["series_id"], row["time_us"]) for row in stored}
