"""One batch of messages into the tiers' hypertables, inside the caller's transaction.

The plain path is one COPY for each tier touched. A duplicate fails a whole COPY, so then the same
rows go through a staging table and `INSERT … ON CONFLICT DO NOTHING`: the first reading of a
(series, time) stays and the neighbours lose nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter

import msgspec
from psycopg import errors

from paqett.db import Connection
from paqett.readings import copy
from paqett.readings.copy import NumberRow, TextRow
from paqett.readings.decode import Value, decode
from paqett.readings.directory import Directory, Entry
from paqett.sqlfiles import query, tier_query

AHEAD_US = 600_000_000  # product contract: at most 10 minutes ahead
_identity = itemgetter(0, 1)


class Incoming(msgspec.Struct):
    """A message as it came: `path` is the topic below `telemetry/`, "" for the bare topic.

    None stands for a topic of the device's that is no telemetry: it is counted as `bad_topic`.
    `received_us` is the time of receipt in µs since 1970; once it has been made unique for the
    device, `stamped` is true, so that a repeated attempt gives the same readings the same times.
    """

    device_id: str
    path: str | None
    payload: bytes
    received_us: int
    stamped: bool = False


class Outcome(msgspec.Struct):
    """What became of a batch, in points; a message of an unknown device counts as `unknown`."""

    stored: int = 0
    duplicates: int = 0
    unknown: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)


class _Usage:
    __slots__ = ("bytes", "duplicates", "messages", "points")

    def __init__(self) -> None:
        self.messages = self.points = self.bytes = self.duplicates = 0


_Pending = tuple[Entry, int, str, Value]  # device, time in µs, metric, value


class _Batch:
    """The rows of one flush, sorted out by tier, and what is to be counted."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str | None], list[NumberRow]] = defaultdict(list)
        self.texts: dict[tuple[str, str | None], list[TextRow]] = defaultdict(list)
        self.unseen: list[_Pending] = []
        self.usage: dict[Entry, _Usage] = defaultdict(_Usage)
        self.rejected: Counter[tuple[Entry, str]] = Counter()
        self.owner: dict[int, Entry] = {}

    def add(self, entry: Entry, time_us: int, metric: str, value: Value) -> None:
        """Put one point where it belongs; a metric not seen before waits in `unseen`."""
        series = entry.series.get(metric)
        if series is None:
            self.unseen.append((entry, time_us, metric, value))
            return
        series_id, kind = series
        if kind_of(value) != kind:
            self.rejected[entry, "type_conflict"] += 1
            return
        self.owner[series_id] = entry
        where = (entry.tier, entry.moving_from)
        if kind == "text":
            self.texts[where].append((series_id, time_us, entry.account_id, value))  # type: ignore[arg-type]
        else:
            self.numbers[where].append((series_id, time_us, entry.account_id, value))  # type: ignore[arg-type]


def kind_of(value: Value) -> str:
    """The kind a metric gets from its first value."""
    if value is True or value is False:
        return "boolean"
    return "text" if type(value) is str else "number"


async def write_batch(
    conn: Connection, directory: Directory, messages: Sequence[Incoming], now: datetime
) -> Outcome:
    """Store the readings of `messages` and count them; the caller's transaction commits.

    Raises what psycopg raises; then nothing of the batch is stored, and the caller must
    `directory.forget` its devices.
    """
    device_ids = {message.device_id for message in messages}
    await directory.refresh(conn, device_ids)
    batch, outcome = _Batch(), Outcome()
    for message in messages:
        entry = directory.get(message.device_id)
        if entry is None:
            outcome.unknown += 1
        else:
            _decode_into(batch, entry, message)
    moving = [entry.account_id for entry in batch.usage if entry.moving_from is not None]
    if moving:
        await conn.execute(query("lock_move_shared"), {"accounts": moving})
    if batch.unseen:
        await _create_series(conn, directory, batch)
    for where, numbers in batch.numbers.items():
        await _store(conn, "numbers", where, numbers, batch, outcome)
    for where, texts in batch.texts.items():
        await _store(conn, "texts", where, texts, batch, outcome)
    await _count(conn, batch, now)
    for (_, code), points in batch.rejected.items():
        outcome.rejected[code] += points
    return outcome


def _decode_into(batch: _Batch, entry: Entry, message: Incoming) -> None:
    if message.path is None:
        batch.rejected[entry, "bad_topic"] += 1
        return
    if not message.stamped:
        message.received_us = entry.stamp(message.received_us)
        message.stamped = True
    received = message.received_us
    decoded = decode(
        message.payload,
        received_us=received,
        oldest_us=received - entry.retention_us,
        newest_us=received + AHEAD_US,
        path=message.path,
        use_device_clock=entry.use_device_clock,
    )
    entry.last_us = max(entry.last_us, received + max(decoded.items - 1, 0))
    usage = batch.usage[entry]
    usage.messages += 1
    usage.bytes += len(message.payload)
    add = batch.add
    for time_us, metric, value in decoded.points:
        add(entry, time_us, metric, value)
    for rejection in decoded.rejections:
        batch.rejected[entry, rejection.code] += rejection.points


async def _create_series(conn: Connection, directory: Directory, batch: _Batch) -> None:
    device_ids = sorted({entry.device_id for entry, *_ in batch.unseen})
    await conn.execute(query("lock_new_series"), {"devices": device_ids})
    await directory.load_series(conn, device_ids)
    wanted: dict[tuple[Entry, str], str] = {}
    room: dict[Entry, int] = {}
    for entry, _, metric, value in batch.unseen:
        if metric in entry.series or (entry, metric) in wanted:
            continue
        left = room.setdefault(entry, _room(entry))
        if left > 0:
            room[entry] = left - 1
            wanted[entry, metric] = kind_of(value)
    await conn.execute(
        query("create_series"),
        {
            "accounts": [entry.account_id for entry, _ in wanted],
            "devices": [entry.device_id for entry, _ in wanted],
            "metrics": [metric for _, metric in wanted],
            "kinds": list(wanted.values()),
        },
    )
    await directory.load_series(conn, device_ids)
    pending, batch.unseen = batch.unseen, []
    for entry, time_us, metric, value in pending:
        if metric in entry.series:
            batch.add(entry, time_us, metric, value)
        else:
            batch.rejected[entry, "metric_limit"] += 1


def _room(entry: Entry) -> int:
    return 1 << 30 if entry.metrics_limit is None else entry.metrics_limit - len(entry.series)


def _first_of_each(rows: list, batch: _Batch) -> list:  # type: ignore[type-arg]
    """Sorted by (series, time) with the first of equal identities; the others are counted."""
    rows.sort(key=_identity)
    kept, last = [], (0, 0)
    for row in rows:
        identity = row[:2]
        if identity == last:
            batch.usage[batch.owner[row[0]]].duplicates += 1
        else:
            kept.append(row)
            last = identity
    return kept


async def _store(
    conn: Connection,
    form: str,
    where: tuple[str, str | None],
    rows: list[NumberRow] | list[TextRow],
    batch: _Batch,
    outcome: Outcome,
) -> None:
    """The rows of one tier and one form, `numbers` or `texts`."""
    kept = _first_of_each(rows, batch)
    data = copy.numbers(kept) if form == "numbers" else copy.texts(kept)
    stored = await _copy(conn, where, form, data, len(kept))
    _settle(kept, len(rows), stored, batch, outcome)


def _settle(
    kept: Sequence[NumberRow | TextRow],
    came: int,
    stored: list[int] | None,
    batch: _Batch,
    outcome: Outcome,
) -> None:
    """Count what was stored and what was there already, device by device."""
    present = Counter(row[0] for row in kept) if stored is None else Counter(stored)
    sent = Counter(row[0] for row in kept)
    total = 0
    for series_id, points in sent.items():
        usage = batch.usage[batch.owner[series_id]]
        usage.points += present[series_id]
        usage.duplicates += points - present[series_id]
        total += present[series_id]
    outcome.stored += total
    outcome.duplicates += came - total


async def _copy(
    conn: Connection, where: tuple[str, str | None], form: str, data: bytes, rows: int
) -> list[int] | None:
    """Store COPY data; None when every row went in, else the series ids of those that did."""
    tier, moving_from = where
    if moving_from is None and rows:
        try:
            async with (
                conn.transaction(),
                conn.cursor() as cursor,
                cursor.copy(tier_query(f"copy_{form}", tier)) as target,
            ):
                await target.write(data)
        except errors.UniqueViolation:
            pass
        else:
            return None
    return await _stage(conn, where, form, data)


async def _stage(
    conn: Connection, where: tuple[str, str | None], form: str, data: bytes
) -> list[int]:
    tier, moving_from = where
    async with conn.transaction(), conn.cursor() as cursor:
        await cursor.execute(query(f"unscoped_stage_{form}"))
        async with cursor.copy(query(f"copy_staged_{form}")) as target:
            await target.write(data)
        if moving_from is not None:
            await cursor.execute(tier_query(f"drop_moved_{form}", moving_from))
        await cursor.execute(tier_query(f"insert_staged_{form}", tier))
        stored = [row["series_id"] for row in await cursor.fetchall()]
        await cursor.execute(query(f"unscoped_unstage_{form}"))
    return stored


async def _count(conn: Connection, batch: _Batch, now: datetime) -> None:
    usage = batch.usage
    if usage:
        await conn.execute(
            query("count_usage"),
            {
                "now": now,
                "accounts": [entry.account_id for entry in usage],
                "devices": [entry.device_id for entry in usage],
                "messages": [used.messages for used in usage.values()],
                "points": [used.points for used in usage.values()],
                "bytes": [used.bytes for used in usage.values()],
                "duplicates": [used.duplicates for used in usage.values()],
            },
        )
    if batch.rejected:
        await conn.execute(
            query("count_rejections"),
            {
                "now": now,
                "accounts": [entry.account_id for entry, _ in batch.rejected],
                "devices": [entry.device_id for entry, _ in batch.rejected],
                "codes": [code for _, code in batch.rejected],
                "points": list(batch.rejected.values()),
            },
        )
