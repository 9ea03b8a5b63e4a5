"""A slice of a move: which stretch of time it is, and its readings carried from tier to tier.

It has about 10,000 readings at most, since flushes of the account wait for it.
"""

from datetime import datetime, timedelta

import msgspec

from paqett.db import Connection
from paqett.sqlfiles import READING_FORMS, query, tier_query

_MOST = 10_000
_SHORTEST = timedelta(milliseconds=1)
_PROBES = 5_000  # looks into an index for one slice: of series and chunks


class Slice(msgspec.Struct, frozen=True):
    """What the next slice of a move is taken from: everything before `carried_to` is done.

    Nothing older than `oldest` is readable any more, nothing is as young as `until`.
    """

    tier: str
    moving_from: str
    oldest: datetime
    carried_to: datetime
    until: datetime
    span: timedelta
    series: list[int]

    @property
    def longest(self) -> timedelta:
        """Stretches without readings are passed in long steps."""
        return timedelta(days=max(1, _PROBES // max(1, len(self.series))))


async def make_chunks(conn: Connection, account_id: int, piece: Slice) -> None:
    """The chunks of the tier it leads to, for the whole move."""
    values = {
        "oldest": max(piece.oldest, piece.carried_to),
        "source": f"telemetry_{piece.moving_from}", "target": f"telemetry_{piece.tier}",
    }  # fmt: skip
    for name in (
        "unscoped_make_chunks", "unscoped_make_text_chunks", "unscoped_take_back",
        "unscoped_take_back_texts",
    ):  # fmt: skip
        await conn.execute(tier_query(name, piece.moving_from, piece.tier), values)
    await conn.execute(query("note_chunks"), {"account": account_id})


async def carry(conn: Connection, account_id: int, piece: Slice) -> None:
    """Carry the slice, as long as its readings allow, and note how far the move has come."""
    span = min(piece.span, piece.longest, piece.until - piece.carried_to)
    rows = await _count(conn, account_id, piece, span)
    while rows >= _MOST and span > _SHORTEST:
        span /= 2
        rows = await _count(conn, account_id, piece, span)
    await _carry(conn, account_id, piece, span)
    values = {
        "account": account_id,
        "carried_to": piece.carried_to + span,
        "span": span * 2 if rows < _MOST // 2 else span,
    }
    await conn.execute(query("note_slice"), values)


async def _count(conn: Connection, account_id: int, piece: Slice, span: timedelta) -> int:
    """How many readings a slice of `span` has; `_MOST` stands for more, too."""
    values = {
        "account": account_id, "series": piece.series, "from": piece.carried_to,
        "to": piece.carried_to + span, "most": _MOST,
    }  # fmt: skip
    statement = tier_query("count_slice", piece.moving_from)
    row = await (await conn.execute(statement, values)).fetchone()
    return int(row["rows"]) if row else 0


async def _carry(conn: Connection, account_id: int, piece: Slice, span: timedelta) -> None:
    """Copied, then deleted: nobody else writes to the tier that is left, and the lock is held."""
    start, end = piece.carried_to, piece.carried_to + span
    values = {"account": account_id, "series": piece.series}
    for form in READING_FORMS:
        if end > piece.oldest:
            statement = tier_query(f"carry_{form}", piece.moving_from, piece.tier)
            kept = {**values, "from": max(start, piece.oldest), "to": end}
            await conn.execute(statement, kept)
        erase = tier_query("erase_readings", piece.moving_from, form=form)
        await conn.execute(erase, {**values, "from": start, "to": end})


async def oldest_reading(
    conn: Connection, tier: str, account_id: int, series: list[int],
    from_: datetime | None, to: datetime | None,
) -> datetime | None:  # fmt: skip
    """When the first reading of these series is of, in the tier, within `[from_, to)`."""
    values = {"account": account_id, "series": series, "from": from_, "to": to}
    found = []
    for form in READING_FORMS:
        statement = tier_query("oldest_of_series", tier, form=form)
        row = await (await conn.execute(statement, values)).fetchone()
        if row and row["time"] is not None:
            found.append(row["time"])
    return min(found, default=None)
