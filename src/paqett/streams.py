"""Live streams as the database knows them: who watches what, within the plan, and for how long.

A stream stands in the table `stream` while somebody reads it; whoever flushes looks there. Its
times are the database's own, which is what a flush compares them with.
"""

import uuid
from datetime import datetime, timedelta

import msgspec

from paqett.db import Connection
from paqett.device_structs import ConnectionStatus, DataStatus, status_of
from paqett.errors import LimitReached
from paqett.plans import Plan
from paqett.principals import Principal
from paqett.sqlfiles import query

LASTS = timedelta(seconds=20)
"""How long a stream counts as open after its process last said so."""


class Status(msgspec.Struct, frozen=True):
    """A device's connection and freshness at one moment."""

    device: str
    connection: ConnectionStatus
    data: DataStatus


async def open_stream(
    conn: Connection, principal: Principal, plan: Plan, device_id: str | None
) -> uuid.UUID:
    """A stream of one device, or with None of the account. Raises `LimitReached`."""
    account = principal.account.id
    await conn.execute(query("lock_streams"), {"account": account})
    row = await (await conn.execute(query("count_streams"), {"account": account})).fetchone()
    present = row["streams"] if row else 0
    if plan.live_streams is not None and present >= plan.live_streams:
        raise LimitReached(
            f"The plan {plan.name} allows {plan.live_streams} live streams at a time.",
            extra={"limit": plan.live_streams},
        )
    stream_id = uuid.uuid4()
    values = {
        "id": stream_id,
        "account": account,
        "device": device_id,
        "key": principal.key_id,
        "session": principal.session.id if principal.session else None,
        "lasts": LASTS,
    }
    await conn.execute(query("open_stream"), values)
    return stream_id


async def keep(conn: Connection, account_id: int, stream_id: uuid.UUID) -> bool:
    """Go on for `LASTS`; false once the device, the key, the session or the account is gone."""
    values = {"id": stream_id, "account": account_id, "lasts": LASTS}
    return await (await conn.execute(query("keep_stream"), values)).fetchone() is not None


async def close(conn: Connection, account_id: int, stream_id: uuid.UUID) -> None:
    """Nobody reads it any more; closing it again does no harm."""
    await conn.execute(query("close_stream"), {"id": stream_id, "account": account_id})


async def statuses(
    conn: Connection, account_id: int, device_ids: list[str], now: datetime
) -> list[Status]:
    """How the account's devices stand at `now`."""
    values = {"account": account_id, "devices": device_ids, "now": now}
    rows = await (await conn.execute(query("stream_statuses"), values)).fetchall()
    return [Status(row["id"], *status_of(row)) for row in rows]
