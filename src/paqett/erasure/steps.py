"""What an erasure does in the database: each function a part of one bounded transaction.

Nothing that arrives can put a reading back: a flush learns in its own transaction that the account
is closing or the device gone (`readings/directory.py`), a move finds `moving_from` empty, and a
spool's record or a request meets the one or the other.
"""

from collections import Counter
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from paqett import jobs
from paqett.db import Connection
from paqett.erasure import receipts
from paqett.erasure.receipts import Receipt
from paqett.errors import PaqettError
from paqett.sqlfiles import READING_FORMS, ReadingForm, query, readings_table, tier_query

MOST_ROWS = 5_000
"""Rows beside readings that one transaction erases."""


class NotEmpty(PaqettError):
    """Something of the account is there again, or still: it is erased once more."""


class Work(msgspec.Struct, frozen=True):
    """An erasure as its job finds it; `account_id` is None once it is done.

    `device_id` None is the whole account, and then the account's columns are there.
    """

    id: str
    account_id: int | None
    device_id: str | None
    series_ids: list[int]
    asked_by: str
    step: str
    reached: datetime | None
    email: str | None
    pending_email: str | None
    made_at: datetime | None
    verified: bool
    customer: str | None


class Stretch(msgspec.Struct, frozen=True):
    """The time of one chunk."""

    tier: str
    form: ReadingForm
    span: dict[str, datetime]


async def find(conn: Connection, erasure_id: str) -> Work | None:
    """The erasure; None where it was undone or is done."""
    found = await conn.execute(query("unscoped_erasure"), {"erasure": erasure_id})
    row = await found.fetchone()
    if row is None or row["finished_at"] is not None:
        return None
    return msgspec.convert({**row, "id": str(row["id"])}, Work)


async def erasure_of(conn: Connection, account_id: int, device_id: str | None) -> str | None:
    """The erasure that is to be done of an account, or of a device of it."""
    values = {"account": account_id, "device": device_id}
    row = await (await conn.execute(query("find_erasure"), values)).fetchone()
    return None if row is None else str(row["id"])


async def begin(conn: Connection, work: Work, now: datetime) -> bool:
    """The point of no return; false where an undoing came first."""
    if work.device_id is None:
        await conn.execute(query("lock_directory"))
        # a slice of a move that is under way ends first, and is the last
        await conn.execute(query("lock_move"), {"account": work.account_id})
        which = {"account": work.account_id, "erasure": work.id}
        begun = await conn.execute(query("begin_erasure"), which)
        if begun.rowcount != 1:
            return False
    values = {"erasure": work.id, "now": now}
    return (await conn.execute(query("note_begun"), values)).rowcount == 1


async def note_step(conn: Connection, work: Work, step: str, kept: str | None = None) -> None:
    """The step in hand: where a job goes on after a crash."""
    await conn.execute(query("note_step"), {"erasure": work.id, "step": step, "kept": kept})


async def note_erased(
    conn: Connection, work: Work, rows: dict[str, int], reached: datetime | None = None
) -> None:
    """Add rows to the receipt, in the transaction that erases them."""
    values = {"erasure": work.id, "rows": Jsonb(rows), "reached": reached}
    await conn.execute(query("note_erased"), values)


async def series_of(conn: Connection, work: Work) -> list[int]:
    """The series whose readings go."""
    if work.device_id is not None:
        return work.series_ids
    values = {"account": work.account_id}
    rows = await (await conn.execute(query("series_of_account"), values)).fetchall()
    return [row["id"] for row in rows]


async def devices_of(conn: Connection, account_id: int) -> list[str]:
    """The account's devices, those that are being erased too."""
    values = {"account": account_id}
    rows = await (await conn.execute(query("devices_of_account"), values)).fetchall()
    return [row["id"] for row in rows]


async def stretches(conn: Connection, tiers: list[str]) -> list[Stretch]:
    """Every chunk of every tier, by the time it is of."""
    found = []
    for tier in tiers:
        for form in READING_FORMS:
            values = {"table": readings_table(tier, form)}
            rows = await conn.execute(query("unscoped_chunks"), values)
            found += [Stretch(tier, form, row) for row in await rows.fetchall()]
    return found


async def series_left(conn: Connection, account_id: int, stretch: Stretch) -> list[int]:
    """Series of the account that have readings there, known to any table or not."""
    values = {"account": account_id, **stretch.span}
    statement = tier_query("left_readings", stretch.tier, form=stretch.form)
    rows = await (await conn.execute(statement, values)).fetchall()
    return [row["series_id"] for row in rows]


async def erase_rows(conn: Connection, work: Work) -> bool:
    """Some rows of one table beside readings; false where none is left."""
    values = {"account": work.account_id, "most": MOST_ROWS}
    rows = await (await conn.execute(query("erase_account_rows"), values)).fetchall()
    await note_erased(conn, work, {row["table_name"]: row["rows"] for row in rows})
    return bool(rows)


async def erase_refusals(conn: Connection, work: Work) -> bool:
    """Some of what a device was refused; false where none is left."""
    values = {"account": work.account_id, "id": work.device_id, "most": MOST_ROWS}
    return (await conn.execute(query("erase_device_refusals"), values)).rowcount > 0


async def erase_jobs(conn: Connection, work: Work) -> bool:
    """The account's jobs; false where one is still in hand. An export in hand gives itself up."""
    values = {"account": work.account_id}
    exports = (await conn.execute(query("erase_exports"), values)).rowcount
    await note_erased(conn, work, {"export": exports} if exports else {})
    row = await (await conn.execute(query("erase_jobs"), values)).fetchone()
    await note_erased(conn, work, {"procrastinate_jobs": row["rows"]} if row else {})
    left = await (await conn.execute(query("count_jobs"), values)).fetchone()
    return not (left and left["jobs"])


async def finish(conn: Connection, work: Work, now: datetime) -> None:
    """Count, and where nothing is left take the account's own row; the receipt stays.

    Raises `NotEmpty`, and then nothing has happened.
    """
    await conn.execute(query("lock_directory"))
    values = {"account": work.account_id}
    await conn.execute(query("lock_closing_account"), values)
    left = Counter(await _left(conn, work))
    if left.total():
        raise NotEmpty(f"there are rows left in {', '.join(sorted(left))}")
    await conn.execute(query("forget_device_erasures"), values)
    gone = await (await conn.execute(query("erase_account"), values)).fetchone()
    if gone is None:
        raise NotEmpty("the account's own row is not as it must be")
    await conn.execute(query("unscoped_clear_directory"))
    await note_erased(conn, work, {"account": 1})
    told = work.verified and work.asked_by != "restore"
    mail_to = work.email if told else None
    await conn.execute(
        query("finish_erasure"), {"erasure": work.id, "now": now, "mail_to": mail_to}
    )
    if told:
        await jobs.defer(conn, "mail_receipt", erasure=work.id)


async def _left(conn: Connection, work: Work) -> dict[str, int]:
    values = {"account": work.account_id}
    rows = await (await conn.execute(query("count_account_rows"), values)).fetchall()
    left = {row["table_name"]: row["rows"] for row in rows}
    row = await (await conn.execute(query("count_jobs"), values)).fetchone()
    return {**left, "procrastinate_jobs": row["jobs"]} if row and row["jobs"] else left


async def finish_device(conn: Connection, work: Work) -> None:
    """The erasure of a device leaves nothing, not even itself."""
    await conn.execute(query("unscoped_forget_device_erasure"), {"erasure": work.id})


async def receipt_to_mail(conn: Connection, erasure_id: str) -> tuple[Receipt, str, str] | None:
    """The receipt, the address it goes to and a token that shows it; None where it is mailed."""
    values: dict[str, Any] = {"erasure": erasure_id}
    row = await (await conn.execute(query("unscoped_receipt_to_mail"), values)).fetchone()
    if row is None:
        return None
    return receipts.from_row(row), row["mail_to"], await receipts.issue(conn, erasure_id)
