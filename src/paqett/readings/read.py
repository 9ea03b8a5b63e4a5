"""Readings out of the tiers: raw, in buckets, latest; never beyond the tier's retention.

While a move is open a reading stands in one of two tiers, and every query takes both.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Invalid
from paqett.sqlfiles import query, tier_query

AGGREGATES = ("avg", "min", "max", "count")
DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000


class Span(msgspec.Struct, frozen=True):
    """`[from_, to)`, one page of `limit` rows after `cursor`; `metrics` None is all."""

    from_: datetime
    to: datetime
    metrics: list[str] | None = None
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


class Rows(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Flat rows, one for each reading or bucket; `from` and `to` as clamped."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    from_: str
    to: str


class Latest(msgspec.Struct, frozen=True):
    """The newest reading of one series."""

    device: str
    metric: str
    kind: str
    unit: str | None
    time: str
    value: float | bool | str


def rfc3339(time: datetime) -> str:
    """UTC with microseconds where there are any, and Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def _oldest(conn: Connection, account: Account, now: datetime) -> datetime:
    """Nothing older is read: greatest(now - retention, readable_from)."""
    row = await (await conn.execute(query("tier_retention"), {"account": account.id})).fetchone()
    if row is None:
        return now
    oldest: datetime = max(now - row["retention"], account.readable_from)
    return oldest


async def _series(
    conn: Connection, account: Account, device_ids: list[str], metrics: list[str] | None
) -> dict[int, dict[str, Any]]:
    values = {"account": account.id, "devices": device_ids, "metrics": metrics}
    rows = await (await conn.execute(query("read_series"), values)).fetchall()
    return {row["id"]: row for row in rows}


def _value(kind: str, row: dict[str, Any]) -> float | bool | str:
    if kind == "text":
        return str(row["text"])
    return bool(row["number"]) if kind == "boolean" else float(row["number"])


def _write_cursor(row: dict[str, Any]) -> str:
    return urlsafe_b64encode(f"{row['time'].isoformat()} {row['series_id']}".encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[datetime | None, int | None]:
    if cursor is None:
        return None, None
    try:
        time, series_id = urlsafe_b64decode(cursor).decode().split(" ")
        return datetime.fromisoformat(time), int(series_id)
    except ValueError:
        raise Invalid("The cursor is not one of ours.", field="cursor") from None


async def _page(
    conn: Connection, account: Account, name: str, span: Span, clamped: datetime,
    series: dict[int, dict[str, Any]], **more: Any,
) -> tuple[list[dict[str, Any]], str | None]:  # fmt: skip
    after_time, after_series = _read_cursor(span.cursor)
    if not series or clamped >= span.to:
        return [], None
    values = {
        "account": account.id,
        "series": [key for key, row in series.items() if row["kind"] != "text"],
        "texts": [key for key, row in series.items() if row["kind"] == "text"],
        "from": clamped,
        "to": span.to,
        "moving": account.moving_from is not None,
        "after_time": after_time,
        "after_series": after_series,
        "limit": span.limit + 1,
        **more,
    }
    found = await conn.execute(tier_query(name, account.tier, account.moving_from), values)
    rows = await found.fetchall()
    page = rows[: span.limit]
    return page, _write_cursor(page[-1]) if len(rows) > span.limit else None


async def read_raw(
    conn: Connection, account: Account, device_ids: list[str], span: Span, order: str, now: datetime
) -> Rows:
    """Readings as they were sent: `{time, device, metric, value}`; `order` is asc or desc."""
    clamped = max(span.from_, await _oldest(conn, account, now))
    series = await _series(conn, account, device_ids, span.metrics)
    name = "read_raw_desc" if order == "desc" else "read_raw_asc"
    page, cursor = await _page(conn, account, name, span, clamped, series)
    items = []
    for row in page:
        of = series[row["series_id"]]
        items.append(
            {
                "time": rfc3339(row["time"]),
                "device": of["device_id"],
                "metric": of["metric"],
                "value": _value(of["kind"], row),
            }
        )
    return Rows(items, cursor, rfc3339(clamped), rfc3339(span.to))


async def read_buckets(
    conn: Connection, account: Account, device_ids: list[str], span: Span,
    bucket_s: float, aggregates: list[str], now: datetime,
) -> Rows:  # fmt: skip
    """One row for each series and bucket of `bucket_s` seconds; `time` is the bucket's start.

    Numbers and booleans only (a boolean counts as 1 or 0).
    """
    clamped = max(span.from_, await _oldest(conn, account, now))
    every = await _series(conn, account, device_ids, span.metrics)
    series = {key: row for key, row in every.items() if row["kind"] != "text"}
    page, cursor = await _page(
        conn, account, "read_buckets", span, clamped, series, bucket=bucket_s
    )
    items = []
    for row in page:
        of = series[row["series_id"]]
        item = {"time": rfc3339(row["time"]), "device": of["device_id"], "metric": of["metric"]}
        item |= {name: row[name] for name in aggregates}
        if len(aggregates) == 1:
            item["value"] = row[aggregates[0]]
        items.append(item)
    return Rows(items, cursor, rfc3339(clamped), rfc3339(span.to))


async def latest(
    conn: Connection, account: Account, device_ids: list[str], now: datetime
) -> list[Latest]:
    """The newest reading of every series of these devices; series without one are left out."""
    series = await _series(conn, account, device_ids, None)
    if not series:
        return []
    values = {
        "account": account.id,
        "series": list(series),
        "from": await _oldest(conn, account, now),
        "moving": account.moving_from is not None,
    }
    name = tier_query("read_latest", account.tier, account.moving_from)
    rows = {r["series_id"]: r for r in await (await conn.execute(name, values)).fetchall()}
    return [
        Latest(
            of["device_id"], of["metric"], of["kind"], of["unit"],
            rfc3339(rows[key]["time"]), _value(of["kind"], rows[key]),
        )
        for key, of in series.items()
        if key in rows
    ]  # fmt: skip
