"""One batch of messages, inside the caller's transaction: read, stored, counted and judged.

How its rows get into the hypertables is `store`'s.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from paqett.db import Connection
from paqett.readings import attributes, limits, thinning
from paqett.readings.batch import Batch
from paqett.readings.directory import NOBODY, Directory, Entry
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.judge import judge
from paqett.readings.ledger import Ledger
from paqett.readings.live import Feed
from paqett.readings.rejection import Rejection
from paqett.readings.seen import Seen
from paqett.readings.store import store, stream
from paqett.readings.used import usage_columns
from paqett.sqlfiles import query

_HOUR_US = 3_600_000_000


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
    await stream(conn, directory, batch, outcome, feed)
    unseen = batch.unseen()
    if unseen:
        await _create_series(conn, directory, unseen)
        # a rule for every device that has the metric has just found one more
        batch.judged = batch.judged or _judged(directory, batch)
    batch.place()
    await store(conn, directory, batch, outcome, feed)
    if batch.over:
        await thinning.settle(conn, batch, outcome)
        await store(conn, directory, batch, outcome, feed)
    for entry, message in sorted(batch.attributes, key=lambda pair: pair[0].device_id):
        refused = await attributes.merge_attributes(
            conn, entry.account_id, entry.device_id, message.payload
        )
        if refused is not None:
            batch.refuse(entry, message, refused)
    hour = _hour(received_us)
    async with conn.pipeline():  # nothing of these is waited for one by one
        if batch.used:
            await conn.execute(query("count_usage"), {"hour": hour, **usage_columns(batch.used)})
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
