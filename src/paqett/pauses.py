"""Devices over a smaller plan's limit: the newest are paused, never deleted.

Which ones is decided by age alone, so it is the same whoever decides it and however often: as many
of the oldest as the plan has room for go on. A paused device keeps its readings and its secret;
the broker and the API refuse what it sends. A place that becomes free goes to the oldest of them.
"""

from datetime import datetime

from paqett import notices
from paqett.db import Connection
from paqett.sqlfiles import query


async def fit(conn: Connection, account_id: int, most: int | None, now: datetime) -> None:
    """Pause what is over `most` devices (None: no limit), let go on what is not; tell of both."""
    await conn.execute(query("lock_device_count"), {"account": account_id})
    values = {"account": account_id, "limit": most, "now": now}
    rows = await (await conn.execute(query("pause_and_resume"), values)).fetchall()
    paused = sum(row["paused"] for row in rows)
    if paused:
        await notices.notify(conn, account_id, "devices_paused", count=paused, limit=most)
    if len(rows) > paused:
        await notices.notify(conn, account_id, "devices_resumed", count=len(rows) - paused)
