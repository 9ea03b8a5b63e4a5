"""Points their account had no room for: duplicates are free, the rest is thinned or refused.

Past 100 % of the quota the first reading of a series in each aligned 5 minutes is kept. To be asked
once what there was room for has been stored: duplicates among that have made room.
"""

from datetime import UTC, datetime

from paqett.db import Connection
from paqett.readings import refusing
from paqett.readings.batch import Batch, Over, Where
from paqett.readings.incoming import Outcome
from paqett.readings.limits import SLOT_US
from paqett.readings.rejection import Rejection
from paqett.sqlfiles import tier_query

Identity = tuple[int, int]  # series id, time in µs since 1970


async def settle(conn: Connection, batch: Batch, outcome: Outcome) -> None:
    """Decide on what is in `batch.over`; what is kept stands in the batch, to be stored."""
    for where, points in list(batch.over.items()):
        present, filled = await _look(conn, where, points)
        if batch.judged:
            batch.seen_over += [p for p in points if (p.series_id, p.time_us) not in present]
        outcome.duplicates += _settle_tier(batch, where, present, filled)


async def _look(
    conn: Connection, where: Where, points: list[Over]
) -> tuple[set[Identity], set[Identity]]:
    """Which of the points stand there already, and the (series, start) of 5 minutes with one."""
    slots = {(p.entry.account_id, p.series_id, _slot(p.time_us)) for p in points}
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
    return present, {(row["series_id"], row["slot_us"]) for row in await found.fetchall()}


def _settle_tier(batch: Batch, where: Where, present: set[Identity], filled: set[Identity]) -> int:
    """How many of a tier's points were duplicates; both sets grow by what is kept."""
    duplicates = 0
    for point in batch.over.pop(where):
        identity = point.series_id, point.time_us
        if identity in present:
            duplicates += 1
            batch.note_duplicate(point)
        elif (rejection := _rejection(point, filled)) is not None:
            batch.refuse_over(point, rejection)
        else:
            present.add(identity)
            filled.add((point.series_id, _slot(point.time_us)))
            batch.keep(
                point.number, point.entry, point.series_id, point.time_us, point.value,
                late=point.late,
            )  # fmt: skip
    return duplicates


def _rejection(point: Over, filled: set[Identity]) -> Rejection | None:
    """Why the point is refused; None where it is admitted."""
    gate = point.entry.gate
    if not point.too_fast and gate.admit_one(late=point.late):
        return None
    if point.late:
        return refusing.too_late(point.item, point.metric)
    if point.too_fast:
        return refusing.too_fast(point.item, point.metric, point.entry.plan)
    if (point.series_id, _slot(point.time_us)) in filled:
        return refusing.thinned(point.item, point.metric)
    if gate.admit_thinned():
        return None
    return refusing.over_quota(point.item, point.metric)


def _slot(time_us: int) -> int:
    """The beginning of the aligned 5 minutes a time lies in; both in µs since 1970."""
    return time_us // SLOT_US * SLOT_US


def _moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC)
