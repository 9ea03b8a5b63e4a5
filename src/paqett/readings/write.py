"""One batch of messages into the tiers' hypertables, inside the caller's transaction.

The plain path is one COPY for each tier touched. A duplicate fails a whole COPY, so then the same
rows go through a staging table and `INSERT … ON CONFLICT DO NOTHING`: the first reading of a
(series, time) stays and the neighbours lose nothing. Once a batch had duplicates the next ones are
staged at once, until some of them had none.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from psycopg import errors

from paqett.db import Connection
from paqett.readings import attributes, limits, rows
from paqett.readings.batch import Batch, Where
from paqett.readings.decode import Rejection
from paqett.readings.directory import Directory, Entry
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.ledger import Ledger
from paqett.readings.limits import SLOT_US
from paqett.readings.plain import Columns
from paqett.readings.rows import Numbers, TextRow
from paqett.sqlfiles import query, tier_query

_HOUR_US = 3_600_000_000
_DOUBT = 20  # flushes staged without need cost less than one COPY that fails


async def write_batch(
    conn: Connection, directory: Directory, messages: Sequence[Incoming]
) -> Outcome:
    """Store the readings of `messages` and count them; the caller's transaction commits.

    Raises what psycopg raises; then nothing of the batch is stored, and the caller must
    `directory.forget` its devices.
    """
    await directory.refresh(conn, {message.device_id for message in messages})
    outcome = Outcome()
    for part in _by_hour(messages):
        await _write_hour(conn, directory, part, outcome)
    return outcome


async def refuse_message(conn: Connection, directory: Directory, message: Incoming) -> Outcome:
    """Record in the ledger a message whose readings the database would not take."""
    await directory.refresh(conn, (message.device_id,))
    entry, outcome = directory.get(message.device_id), Outcome()
    if entry is None:
        outcome.unknown = 1
        return outcome
    ledger = Ledger()
    ledger.add(entry, message, Rejection(0, None, "bad_value", "the database cannot store it"))
    await ledger.save(conn, _hour(message.received_us), outcome)
    return outcome


def _hour(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // _HOUR_US * 3600, UTC)


def _by_hour(messages: Sequence[Incoming]) -> Iterator[Sequence[Incoming]]:
    """Usage is counted by the hour of receipt, and a quota by its day."""
    if messages and messages[0].received_us // _HOUR_US == messages[-1].received_us // _HOUR_US:
        yield messages
        return
    for _, part in groupby(messages, lambda message: message.received_us // _HOUR_US):
        yield list(part)


async def _write_hour(
    conn: Connection, directory: Directory, messages: Sequence[Incoming], outcome: Outcome
) -> None:
    batch = Batch(messages, [directory.get(message.device_id) for message in messages])
    outcome.unknown += batch.unknown
    received_us = messages[0].received_us
    gates = await limits.open_gates(conn, directory, batch.known(), received_us)
    batch.read()
    moving = {entry.account_id for entry in batch.used if entry.moving_from is not None}
    if moving:
        await conn.execute(query("lock_move_shared"), {"accounts": sorted(moving)})
    if batch.unseen():
        await _create_series(conn, directory, batch)
    batch.place()
    await _thin(conn, batch)
    for where in sorted(batch.columns, key=str):
        await _store_numbers(conn, directory, where, batch, outcome)
    for where in sorted(batch.texts, key=str):
        await _store_texts(conn, directory, where, batch, outcome)
    for entry, message in sorted(batch.attributes, key=lambda pair: pair[0].device_id):
        refused = await attributes.merge_attributes(
            conn, entry.account_id, entry.device_id, message.payload
        )
        if refused is not None:
            batch.refuse(entry, message, refused)
    hour = _hour(received_us)
    if batch.used:
        await conn.execute(query("count_usage"), {"hour": hour, **batch.usage_columns()})
    await batch.ledger.save(conn, hour, outcome)
    await limits.save_gates(conn, directory, gates)


async def _create_series(conn: Connection, directory: Directory, batch: Batch) -> None:
    """First sight of metrics, as many as the plan leaves room for; the rest stays unknown."""
    unseen = batch.unseen()
    device_ids = sorted({entry.device_id for entry, _ in unseen})
    await conn.execute(query("lock_new_series"), {"devices": device_ids})
    await directory.load_series(conn, device_ids)
    wanted: list[tuple[Entry, str, str]] = []
    room: dict[Entry, int] = {}
    for (entry, metric), kind in unseen.items():
        if metric in entry.series:
            continue
        left = room.setdefault(entry, entry.room())
        if left > 0:
            room[entry] = left - 1
            wanted.append((entry, metric, kind))
    await conn.execute(
        query("create_series"),
        {
            "accounts": [entry.account_id for entry, *_ in wanted],
            "devices": [entry.device_id for entry, *_ in wanted],
            "metrics": [metric for _, metric, _ in wanted],
            "kinds": [kind for *_, kind in wanted],
        },
    )
    await directory.load_series(conn, device_ids)


async def _thin(conn: Connection, batch: Batch) -> None:
    """Past the quota: the first reading of each series in each aligned 5 minutes, no more."""
    for where, points in batch.over_quota.items():
        slots = {(p.entry.account_id, p.series_id, p.time_us // SLOT_US * SLOT_US) for p in points}
        tier, moving_from = where
        found = await conn.execute(
            tier_query("filled_slots", tier, moving_from),
            {
                "accounts": [account for account, *_ in slots],
                "series": [series for _, series, _ in slots],
                "slots": [slot for *_, slot in slots],
            },
        )
        filled = {(row["series_id"], row["slot_us"]) for row in await found.fetchall()}
        batch.thin(where, points, filled)


async def _store_numbers(
    conn: Connection, directory: Directory, where: Where, batch: Batch, outcome: Outcome
) -> None:
    columns: Columns = batch.columns[where]
    found = rows.sort_numbers(columns)
    accounts = np.array(batch.accounts, np.int64)[found.numbers]
    data = rows.pack_numbers(found.series, found.times, accounts, found.values)
    stored = await _copy(conn, directory, where, "numbers", data)
    again = found.again if stored is None else [*found.again, *_not_in(stored, found)]
    batch.note_duplicates(again)
    outcome.stored += len(columns.series) - len(again)
    outcome.duplicates += len(again)
    outcome.measured_us.append(found.times)


def _not_in(stored: set[tuple[int, int]], found: Numbers) -> list[tuple[int, int]]:
    identities = zip(found.series.tolist(), found.times.tolist(), strict=True)
    return [
        (number, identity[1])
        for number, identity in zip(found.numbers.tolist(), identities, strict=True)
        if identity not in stored
    ]


async def _store_texts(
    conn: Connection, directory: Directory, where: Where, batch: Batch, outcome: Outcome
) -> None:
    came: list[TextRow] = batch.texts[where]
    kept, again = rows.sort_texts(came)
    data = rows.pack_texts(kept, batch.accounts)
    stored = await _copy(conn, directory, where, "texts", data)
    if stored is not None:
        again += [(row[2], row[1]) for row in kept if row[:2] not in stored]
    batch.note_duplicates(again)
    outcome.stored += len(came) - len(again)
    outcome.duplicates += len(again)


async def _copy(
    conn: Connection, directory: Directory, where: Where, form: str, data: bytes
) -> set[tuple[int, int]] | None:
    """Store COPY data; None when every row went in, else the (series, µs) of those that did."""
    tier, moving_from = where
    if moving_from is None and not directory.doubt:
        try:
            async with (
                conn.transaction(),
                conn.cursor() as cursor,
                cursor.copy(tier_query(f"copy_{form}", tier)) as target,
            ):
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
