"""What was refused of an account's devices, and why. A point is one metric value."""

import re
from datetime import datetime
from typing import Any

import msgspec

from paqett import lists
from paqett.accounts import Account
from paqett.db import Connection
from paqett.sqlfiles import query

_DEVICE_AND_CODE = re.compile(r"[A-Za-z0-9_-]{1,16} [a-z_]{1,64}")


class Example(msgspec.Struct, frozen=True):
    """A refused message: at most 4 KB of its payload; `payload_bytes` is the whole one's size."""

    time: datetime
    topic: str
    metric: str | None
    detail: str
    payload: str
    payload_bytes: int


class RejectionHour(msgspec.Struct, frozen=True):
    """Points of one device refused for one code in one hour of receipt, with some examples."""

    device: str
    hour: datetime
    code: str
    points: int
    examples: list[Example]


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next_cursor` is None on the last page."""

    items: list[RejectionHour]
    next_cursor: str | None


async def list_rejections(
    conn: Connection, account: Account, *, devices: list[str] | None, code: str | None,
    limit: int, cursor: str | None,
) -> Page:  # fmt: skip
    """Refusals by device, hour and code, newest hour first. Raises `Invalid` for a bad cursor."""
    hour, key = lists.read_time(cursor, _DEVICE_AND_CODE)
    device, after_code = key.split(" ") if key else (None, None)
    values = {
        "account": account.id, "devices": devices, "code": code, "limit": limit + 1,
        "after_hour": hour, "after_device": device, "after_code": after_code,
    }  # fmt: skip
    rows = await (await conn.execute(query("rejection_hours"), values)).fetchall()
    page = rows[:limit]
    examples = await _examples(conn, account, page)
    items = [
        RejectionHour(
            row["device"], row["hour"], row["code"], row["points"],
            examples.get((row["device"], row["hour"], row["code"]), []),
        )
        for row in page
    ]  # fmt: skip
    last = items[-1] if len(rows) > limit else None
    next_cursor = lists.write_time(last.hour, f"{last.device} {last.code}") if last else None
    return Page(items, next_cursor)


async def _examples(
    conn: Connection, account: Account, page: list[dict[str, Any]]
) -> dict[tuple[str, datetime, str], list[Example]]:
    found = await conn.execute(
        query("rejection_examples"),
        {
            "account": account.id,
            "devices": [row["device"] for row in page],
            "hours": [row["hour"] for row in page],
            "codes": [row["code"] for row in page],
        },
    )
    examples: dict[tuple[str, datetime, str], list[Example]] = {}
    for row in await found.fetchall():
        kept = examples.setdefault((row["device_id"], row["hour"], row["code"]), [])
        text = bytes(row["payload"]).decode("utf-8", "replace")
        kept.append(
            Example(
                row["time"], row["topic"], row["metric"], row["detail"], text, row["payload_bytes"]
            )
        )
    return examples
