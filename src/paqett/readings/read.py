"""Readings out of the tiers: raw, in buckets, latest; never beyond the tier's retention.

While a move is open a reading stands in one of two tiers, and every query takes both.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Invalid, NotFound
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


class _State(msgspec.Struct, frozen=True):
    """Where the account's readings stand at one moment."""

    tier: str
    moving_from: str | None
    readable_from: datetime
    retention: timedelta

    def oldest(self, now: datetime) -> datetime:
        """Nothing older is read: greatest(now - retention, readable_from)."""
        return max(now - self.retention, self.readable_from)


async def _state(conn: Connection, account: Account) -> _State:
    row = await (await conn.execute(query("reading_state"), {"account": account.id})).fetchone()
    if row is None:
        raise NotFound("There is no such account.")
    return msgspec.convert(row, _State)


async def _rows(
    conn: Connection, account: Account, name: str, start: datetime, now: datetime,
    values: dict[str, Any],
) -> tuple[list[dict[str, Any]], datetime]:  # fmt: skip
    """What the query finds from `start` as clamped, and that time.

    A move may begin or end between two statements. What was read while the state changed may lack
    readings, so it is read again.
    """
    state = await _state(conn, account)
    while True:
        clamped = max(start, state.oldest(now))
        moment = {
            "account": account.id,
            "from": clamped,
            "moving": state.moving_from is not None,
            **values,
        }
        found = await conn.execute(tier_query(name, state.tier, state.moving_from), moment)
        rows = await found.fetchall()
        before, state = state, await _state(conn, account)
        if state == before:
            return rows, clamped


async def _series(
    conn: Connection, account: Account, device_ids: list[str], metrics: list[str] | None
) -> dict[int, dict[str, Any]]:
    values = {"account": account.id, "devices": device_ids, "metrics": metrics}
    rows = await (await conn.execute(query("read_series"), values)).fetchall()
    return {row["id"]: row for row in rows}


def _value(kind: str, row: dict[str, Any]) -> float | bool | str:
    """By where it stands: a mixed series has numbers and texts."""
    if row["number"] is None:
        return str(row["text"])
    return bool(row["number"]) if kind == "boolean" else float(row["number"])


def _identities(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each (series, time) once: a mixed series may hold it as a number and as a text."""
    kept, last = [], None
    for row in rows:
        identity = (row["series_id"], row["time"])
        if identity != last:
            kept.append(row)
        last = identity
    return kept


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
    conn: Connection, account: Account, name: str, span: Span, now: datetime,
    series: dict[int, dict[str, Any]], **more: Any,
) -> tuple[list[dict[str, Any]], str | None, datetime]:  # fmt: skip
    """One page, the cursor of the next, and `from` as clamped."""
    after_time, after_series = _read_cursor(span.cursor)
    values = {
        "series": [key for key, row in series.items() if row["kind"] != "text" or row["mixed"]],
        "texts": [key for key, row in series.items() if row["kind"] == "text" or row["mixed"]],
        "to": span.to,
        "after_time": after_time,
        "after_series": after_series,
        "limit": span.limit + 1,
        **more,
    }
    rows, clamped = await _rows(conn, account, name, span.from_, now, values)
    page = rows[: span.limit]
    return page, _write_cursor(page[-1]) if len(rows) > span.limit else None, clamped


async def read_raw(
    conn: Connection, account: Account, device_ids: list[str], span: Span, order: str, now: datetime
) -> Rows:
    """Readings as they were sent: `{time, device, metric, value}`; `order` is asc or desc."""
    series = await _series(conn, account, device_ids, span.metrics)
    name = "read_raw_desc" if order == "desc" else "read_raw_asc"
    page, cursor, clamped = await _page(conn, account, name, span, now, series)
    items = []
    for row in _identities(page):
        of = series[row["series_id"]]
        items.append(
            {
                "time": rfc3339(row["time"]),
                "device": of["device_id"],
                "metric": of["metric"],
                "value": _value(of["kind"], row),
            }
        )
    return Rows(items, cursor, rfc3339(clamped), rfc3339(max(clamped, span.to)))


async def read_buckets(
    conn: Connection, account: Account, device_ids: list[str], span: Span,
    bucket_s: float, aggregates: list[str], now: datetime,
) -> Rows:  # fmt: skip
    """One row for each series and bucket of `bucket_s` seconds; `time` is the bucket's start.

    Numbers and booleans only (a boolean counts as 1 or 0).
    """
    every = await _series(conn, account, device_ids, span.metrics)
    series = {key: row for key, row in every.items() if row["kind"] != "text"}
    page, cursor, clamped = await _page(
        conn, account, "read_buckets", span, now, series, bucket=bucket_s
    )
    items = []
    for row in page:
        of = series[row["series_id"]]
        item = {"time": rfc3339(row["time"]), "device": of["device_id"], "metric": of["metric"]}
        item |= {name: row[name] for name in aggregates}
        if len(aggregates) == 1:
            item["value"] = row[aggregates[0]]
        items.append(item)
    return Rows(items, cursor, rfc3339(clamped), rfc3339(max(clamped, span.to)))


async def latest(
    conn: Connection, account: Account, device_ids: list[str], now: datetime
) -> list[Latest]:
    """The newest reading of every series of these devices; series without one are left out."""
    series = await _series(conn, account, device_ids, None)
    if not series:
        return []
    start = datetime.min.replace(tzinfo=UTC)
    found, _ = await _rows(conn, account, "read_latest", start, now, {"series": list(series)})
    rows = {row["series_id"]: row for row in found}
    return [
        Latest(
            of["device_id"], of["metric"], of["kind"], of["unit"],
            rfc3339(rows[key]["time"]), _value(of["kind"], rows[key]),
        )
        for key, of in series.items()
        if key in rows
    ]  # fmt: skip
