"""What a ledger of acknowledged messages promises, against what is stored."""

from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from paqett.db import Connection
from paqett.sqlfiles import query, tier_query

_LINES = 10_000


class Balance(msgspec.Struct, frozen=True):
    """Points promised and stored; `missing` and `doubled` are counted reading by reading."""

    promised: int
    stored: int
    missing: int
    doubled: int


async def stage(conn: Connection, file: Path) -> None:
    """Put the ledger beside the readings, in a table that goes with the connection."""
    await conn.execute(query("unscoped_torture_stage"))
    async with conn.cursor() as cursor, cursor.copy(query("unscoped_torture_promises")) as target:
        with file.open("rb") as lines:
            while part := list(islice(lines, _LINES)):
                await target.write(b"".join(map(_copy_line, part)))


def _copy_line(line: bytes) -> bytes:
    device, time_us, points = msgspec.json.decode(line, type=tuple[str, int, int])
    return f"{device}\t{time_us}\t{points}\n".encode()


async def count(conn: Connection, tier: str, accounts: list[int], since: datetime) -> Balance:
    """The staged ledger against what `tier` holds of `accounts` from `since` on."""
    values = {"accounts": accounts, "since": since}
    row = await (await conn.execute(tier_query("torture_balance", tier), values)).fetchone()
    return msgspec.convert(row, Balance)
