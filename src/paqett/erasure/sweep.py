"""Readings of series that are to go: oldest first, a bounded number in each transaction.

A step takes the same stretch of time out of every tier while nothing moves between them, so a
reading on its way to another tier is found in one or the other, and what lies before the stretch is
gone for good. The stretch grows and shrinks with what is in it.
"""

from datetime import datetime, timedelta

import msgspec

from paqett import jobs, moves
from paqett.accounts import Account
from paqett.db import Connection
from paqett.move_slices import oldest_reading
from paqett.readings.buckets import to_us
from paqett.sqlfiles import READING_FORMS, query, readings_table, tier_query

MOST_ROWS = 20_000
"""Of one transaction, the longest of which others wait for: flushes and moves of the account alone.

Measured twice on two busy cores, 300,000 readings of 40 series over 30 days, with the median of a
transaction: 5,000 went at 63,000 to 74,000 readings a second (30 to 35 ms), 20,000 at 85,000 to
144,000 (54 to 106 ms, at most 0.4 s), 100,000 at 159,000 to 217,000 (204 to 242 ms).
"""
_FIRST = timedelta(hours=6)  # a step takes up to four times the one before
_LONGEST, _SHORTEST = timedelta(days=30), timedelta(microseconds=1)


class Reach(msgspec.Struct, frozen=True):
    """How far an erasure is: everything before `time` is gone.

    `stretch` is how long the last step's time was, `rows` what it erased, by table.
    """

    time: datetime | None = None
    stretch: timedelta = _FIRST
    rows: dict[str, int] = {}


async def begin_removal(
    conn: Connection, account: Account, device_id: str, metrics: list[str] | None
) -> list[int]:
    """A device's series, all or those of `metrics`, once every flush in flight is committed.

    What arrives after this is new, and stays.
    """
    await conn.execute(query("lock_directory"))
    values = {"account": account.id, "id": device_id}
    rows = await (await conn.execute(query("device_series"), values)).fetchall()
    return [row["id"] for row in rows if metrics is None or row["metric"] in metrics]


async def remove_later(
    conn: Connection, account_id: int, device_id: str, series: list[int],
    from_: datetime, to: datetime,
) -> None:  # fmt: skip
    """A job erases these series' readings of `[from_, to)`."""
    await jobs.defer(
        conn, "erase_series", lock=f"erase {device_id}", account_id=account_id, series_ids=series,
        from_us=to_us(from_), to_us=to_us(to),
    )  # fmt: skip


async def erase_some(
    conn: Connection, account_id: int, series: list[int], reach: Reach,
    to: datetime | None = None,
) -> Reach | None:  # fmt: skip
    """Erase the next readings of these series in every tier, before `to` where it is given.

    None where nothing is left. At most `MOST_ROWS`, or one for each series where all are of one
    moment. The caller's transaction holds off moves of the account.
    """
    await conn.execute(query("lock_move"), {"account": account_id})
    tiers = list(await moves.tier_retentions(conn))
    start = await _oldest(conn, tiers, account_id, series, reach.time, to)
    if start is None:
        return None
    end = await _end(conn, tiers, account_id, series, start, reach.stretch, to)
    rows: dict[str, int] = {}
    span = {"account": account_id, "series": series, "from": start, "to": end}
    for tier in tiers:
        for form in READING_FORMS:
            erase = tier_query("erase_readings", tier, form=form)
            gone = (await conn.execute(erase, span)).rowcount
            if gone:
                rows[readings_table(tier, form)] = gone
    return Reach(end, end - start, rows)


async def _oldest(
    conn: Connection, tiers: list[str], account_id: int, series: list[int],
    from_: datetime | None, to: datetime | None,
) -> datetime | None:  # fmt: skip
    found = [await oldest_reading(conn, tier, account_id, series, from_, to) for tier in tiers]
    return min(filter(None, found), default=None)


async def _end(
    conn: Connection, tiers: list[str], account_id: int, series: list[int],
    start: datetime, stretch: timedelta, to: datetime | None,
) -> datetime:  # fmt: skip
    """Where the next step ends: as far as there are not too many readings."""
    stretch = min(4 * stretch, _LONGEST)
    while True:
        end = start + max(stretch, _SHORTEST)
        if to is not None:
            end = min(end, to)
        if stretch <= _SHORTEST:
            return end
        if await _count(conn, tiers, account_id, series, start, end) <= MOST_ROWS:
            return end
        stretch = (end - start) / 4


async def _count(
    conn: Connection, tiers: list[str], account_id: int, series: list[int],
    start: datetime, end: datetime,
) -> int:  # fmt: skip
    values = {
        "account": account_id, "series": series, "from": start, "to": end, "limit": MOST_ROWS + 1,
    }  # fmt: skip
    counted = 0
    for tier in tiers:
        for form in READING_FORMS:
            found = await conn.execute(tier_query("count_of_series", tier, form=form), values)
            row = await found.fetchone()
            counted += row["rows"] if row else 0
    return counted
