"""One batch of messages into the tiers' hypertables, inside the caller's transaction.

The plain path is one COPY for each tier touched. A duplicate fails a whole COPY, so then the same
rows go through a staging table and `INSERT … ON CONFLICT DO NOTHING`: the first reading of a
(series, time) stays and the neighbours lose nothing. Once a batch had duplicates the next ones are
staged at once, until some of them had none.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg import errors

from paqett.db import Connection
from paqett.readings import attributes, limits, rows
from paqett.readings.batch import Batch, Where, slot_of
from paqett.readings.directory import NOBODY, Directory, Entry
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.judge import judge
from paqett.readings.ledger import Ledger
from paqett.readings.limits import SLOT_US
from paqett.readings.live import Feed
from paqett.readings.plain import Columns
from paqett.readings.rejection import Rejection
from paqett.readings.rows import Numbers, TextRow
from paqett.readings.seen import Seen
from paqett.sqlfiles import query, tier_query

_HOUR_US = 3_600_000_000
# So that the database begins early, and nobody else waits for long: what arrives meanwhile lies in
# the broker.
_STREAMED_ROWS = 2048
_DOUBT = 20  # flushes staged without need cost less than one COPY that fails


async def write_batch(
    conn: Connection, directory: Directory, messages: Sequence[Incoming]
) -> Outcome:
    """Store the readings of `messages` and count them; the caller's transaction commits.

    Raises what psycopg raises; then nothing of the batch is stored, and the caller must
    `directory.forget` its devices.
    """
    await directory.refresh(conn, {message.device_id for message in messages})
    outcome, seen = Outcome(), Seen()
    for part in _by_hour(messages):
        await _write_hour(conn, directory, part, outcome, seen)
    if seen.accounts:
        await judge(conn, directory, seen)
    return outcome


async def refuse_message(conn: Connection, directory: Directory, message: Incoming) -> Outcome:
    """Record in the ledger a message whose readings the database would not take."""
    await directory.refresh(conn, (message.device_id,))
    entry, outcome = directory.get(message.device_id), Outcome()
    if entry is None:
        outcome.unknown = 1
        if message.report is not None:
            message.report.unknown = True
        return outcome
    ledger = Ledger()
    ledger.add(entry, message, Rejection(0, None, "bad_value", "the database cannot store it"))
    await ledger.save(conn, _hour(message.received_us), outcome)
    return outcome


def _hour(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // _HOUR_US * 3600, UTC)


def _moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC)


def _by_hour(messages: Sequence[Incoming]) -> Iterator[Sequence[Incoming]]:
    """Usage is counted by the hour of receipt, and a quota by its day."""
    times_us = [message.received_us for message in messages]
    if not times_us:
        return
    if min(times_us) // _HOUR_US == max(times_us) // _HOUR_US:
        yield messages
        return
    for hour in sorted({time_us // _HOUR_US for time_us in times_us}):
        yield [message for message in messages if message.received_us // _HOUR_US == hour]


async def _write_hour(
    conn: Connection, directory: Directory, messages: Sequence[Incoming], outcome: Outcome,
    seen: Seen,
) -> None:  # fmt: skip
    entries = [directory.get(message.device_id) for message in messages]
    batch = Batch(messages, entries)
    batch.judged = _judged(directory, batch)
    feed = None if directory.watch is NOBODY else Feed(directory.watch, entries)
    outcome.unknown += batch.unknown
    # the earliest, since the times of a device that sends much are pushed ahead
    received_us = min([message.received_us for message in messages])
    moving = {entry.account_id for entry in batch.known if entry.moving_from is not None}
    if moving:
        await conn.execute(query("lock_move_shared"), {"accounts": sorted(moving)})
    gates = await limits.open_gates(conn, directory, batch.known, received_us)
    await _stream(conn, directory, batch, outcome, feed)
    unseen = batch.unseen()
    if unseen:
        await _create_series(conn, directory, unseen)
        # a rule for every device that has the metric has just found one more
        batch.judged = batch.judged or _judged(directory, batch)
    batch.place()
    await _store(conn, directory, batch, outcome, feed)
    if batch.over:
        await _store_what_was_over(conn, directory, batch, outcome, feed)
    for entry, message in sorted(batch.attributes, key=lambda pair: pair[0].device_id):
        refused = await attributes.merge_attributes(
            conn, entry.account_id, entry.device_id, message.payload
        )
        if refused is not None:
            batch.refuse(entry, message, refused)
    hour = _hour(received_us)
    async with conn.pipeline():  # nothing of these is waited for one by one
        if batch.used:
            await conn.execute(query("count_usage"), {"hour": hour, **batch.usage_columns()})
        await batch.ledger.save(conn, hour, outcome)
        await limits.save_gates(conn, directory, gates)
    if batch.judged:
        seen.add(batch)
    if feed is not None:
        await feed.publish(conn, batch.ledger.refused)


def _judged(directory: Directory, batch: Batch) -> bool:
    return bool(directory.rules) and any(entry.judged for entry in batch.known)


async def _create_series(
    conn: Connection, directory: Directory, unseen: dict[tuple[Entry, str], str]
) -> None:
    """First sight of metrics, as many as the plan leaves room for; the rest stays unknown."""
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


async def _store(
    conn: Connection, directory: Directory, batch: Batch, outcome: Outcome, feed: Feed | None
) -> None:
    for where in sorted(batch.columns, key=str):
        await _store_numbers(conn, directory, where, batch, outcome, feed)
    for where in sorted(batch.texts, key=str):
        await _store_texts(conn, directory, where, batch, outcome, feed)


async def _store_what_was_over(
    conn: Connection, directory: Directory, batch: Batch, outcome: Outcome, feed: Feed | None
) -> None:
    """Points there was no room for: duplicates are free, and those stored have made room."""
    for where, points in list(batch.over.items()):
        slots = {(p.entry.account_id, p.series_id, slot_of(p.time_us)) for p in points}
        bounds = {
            "moving": where[1] is not None,
            "since": _moment(min(slot for *_, slot in slots)),
            "until": _moment(max(slot for *_, slot in slots) + SLOT_US),
        }
        wanted = {
            "accounts": [point.entry.account_id for point in points],
            "series": [point.series_id for point in points],
            "times": [point.time_us for point in points],
        }
        found = await conn.execute(tier_query("present_readings", *where), {**wanted, **bounds})
        present = {(row["series_id"], row["time_us"]) for row in await found.fetchall()}
        looked = {
            "accounts": [account for account, *_ in slots],
            "series": [series for _, series, _ in slots],
            "slots": [slot for *_, slot in slots],
        }
        found = await conn.execute(tier_query("filled_slots", *where), {**looked, **bounds})
        filled = {(row["series_id"], row["slot_us"]) for row in await found.fetchall()}
        if batch.judged:
            batch.seen_over += [p for p in points if (p.series_id, p.time_us) not in present]
        outcome.duplicates += batch.settle(where, present, filled)
    await _store(conn, directory, batch, outcome, feed)


async def _stream(
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
        async with (
            conn.transaction(),
            conn.cursor() as cursor,
            cursor.copy(tier_query("copy_numbers", tier)) as target,
        ):
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
    again = [pair for found in copied for pair in found.again]
    batch.note_duplicates(again)
    if batch.judged:
        batch.seen_numbers += copied
    stored = sum(len(part.series) for part in parts)
    outcome.stored += stored - len(again)
    outcome.duplicates += len(again)
    outcome.measured_us += [part.times for part in parts]


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
    batch.note_duplicates(again)
    outcome.stored += len(columns.series) - len(again)
    outcome.duplicates += len(again)
    outcome.measured_us.append(found.times)
    if batch.judged:
        batch.seen_numbers.append(found if stored is None else _without(found, stored))


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
    batch.note_duplicates(again)
    outcome.stored += len(came) - len(again)
    outcome.duplicates += len(again)
    if batch.judged:
        batch.seen_texts += kept


async def _copy(
    conn: Connection, directory: Directory, where: Where, form: str, data: bytes
) -> set[tuple[int, int]] | None:
    """Store packed rows; None when every row went in, else the (series, µs) of those that did."""
    tier, moving_from = where
    data = b"".join((rows.HEADER, data, rows.TRAILER))
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
