"""What an account has used of its plan. A point is one metric value."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from paqett import notices
from paqett.accounts import Account
from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query

LEVELS = (80, 90, 100)
"""% of the day's points at which somebody is warned."""


class Counted(msgspec.Struct, frozen=True):
    """Messages, points stored (late ones too), bytes received, duplicates; refused by code."""

    messages: int
    points: int
    bytes: int
    late: int
    duplicates: int
    rejected: dict[str, int]


class Quota(msgspec.Struct, frozen=True):
    """Points of the UTC day that count against the plan; None is no limit."""

    used: int
    limit: int | None
    percent: float | None
    resets_at: datetime


class LateBucket(msgspec.Struct, frozen=True):
    """Points older than 5 minutes at receipt that may still be sent; None is no limit."""

    left: int | None
    limit: int | None


class DeviceUsage(msgspec.Struct, frozen=True):
    """One device's part of a day."""

    device: str
    messages: int
    points: int
    bytes: int
    late: int
    duplicates: int


class Day(msgspec.Struct, frozen=True):
    """A UTC day of receipt."""

    day: str
    messages: int
    points: int
    bytes: int
    late: int
    duplicates: int
    rejected: int


class Month(msgspec.Struct, frozen=True):
    """A UTC month of receipt, as `2026-11`."""

    month: str
    messages: int
    points: int
    bytes: int
    late: int
    duplicates: int
    rejected: int


class Requests(msgspec.Struct, frozen=True):
    """API requests, and the bytes of their bodies and of the answers' bodies."""

    requests: int
    bytes_in: int
    bytes_out: int


KeyDay = tuple[int, date, int]  # account, UTC day, key (0: signed-in people)


class KeyRequests(Requests, frozen=True):
    """One key's part of today. `key` is None for signed-in people, `name` for a deleted key too."""

    key: int | None
    name: str | None


class DayRequests(Requests, frozen=True):
    """A UTC day."""

    day: str


class ApiUsage(msgspec.Struct, frozen=True):
    """Today by key, and the days before, newest first; counted within seconds."""

    today: Requests
    keys: list[KeyRequests]
    days: list[DayRequests]


class Usage(msgspec.Struct, frozen=True):
    """Today by device, until `resets_at`; days before and months with this one, newest first."""

    plan: str
    resets_at: datetime
    today: Counted
    quota: Quota
    late_bucket: LateBucket
    devices: list[DeviceUsage]
    days: list[Day]
    months: list[Month]
    api: ApiUsage


async def today(
    conn: Connection, account: Account, plan: Plan, now: datetime, days: int,
    devices: list[str] | None = None, key: int | None = None, months: int = 12,
) -> Usage:  # fmt: skip
    """Usage of the UTC day of `now`, of the `days` days before, and of `months` months with now's.

    With `devices` of these alone, but for the quota and the late bucket, which are the account's;
    with `key` the API usage of this key alone.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    values: dict[str, Any] = {
        "account": account.id,
        "from": midnight,
        "to": midnight + timedelta(days=1),
        "devices": devices,
    }
    by_device = await (await conn.execute(query("usage_by_device"), values)).fetchall()
    refused = await (await conn.execute(query("rejections_by_code"), values)).fetchall()
    used = await (await conn.execute(query("quota_used"), values)).fetchone()
    total = {
        name: sum(row[name] for row in by_device)
        for name in ("messages", "points", "bytes", "late", "duplicates")
    }
    tomorrow = midnight + timedelta(days=1)
    since = midnight - timedelta(days=days)
    by_day = await _spans(conn, values, "day", "YYYY-MM-DD", since, midnight)
    first = _months_before(midnight, months - 1)
    by_month = await _spans(conn, values, "month", "YYYY-MM", first, tomorrow if months else first)
    return Usage(
        plan.name,
        tomorrow,
        Counted(**total, rejected={row["code"]: row["points"] for row in refused}),
        _quota(plan, used["used"] if used else 0, tomorrow),
        await _late_bucket(conn, account, plan, now),
        [msgspec.convert(row, DeviceUsage) for row in by_device],
        [msgspec.convert({**row, "day": row["span"]}, Day) for row in by_day],
        [msgspec.convert({**row, "month": row["span"]}, Month) for row in by_month],
        await _api_usage(conn, account, midnight.date(), days, key),
    )


async def _spans(
    conn: Connection, values: dict[str, Any], unit: str, form: str, since: datetime, to: datetime
) -> list[dict[str, Any]]:
    asked = {**values, "unit": unit, "form": form, "from": since, "to": to}
    return await (await conn.execute(query("usage_by_span"), asked)).fetchall()


def _months_before(day: datetime, months: int) -> datetime:
    """The first of the month so many months before that of `day`."""
    count = day.year * 12 + day.month - 1 - months
    return day.replace(year=count // 12, month=count % 12 + 1, day=1)


async def warn(conn: Connection, plans: dict[str, Plan], now: datetime) -> None:
    """Tell whoever passed 80, 90 or 100 % of the UTC day's points, of each level once.

    Late points do not count, as for the quota. Read from the counters that flushes keep anyway.
    """
    limited = {plan.name: plan.points_per_day for plan in plans.values() if plan.points_per_day}
    day = now.astimezone(UTC).date()
    values = {
        "plans": list(limited),
        "quotas": list(limited.values()),
        "levels": list(LEVELS),
        "day": day,
    }
    passed = await (await conn.execute(query("unscoped_quota_levels"), values)).fetchall()
    resets_at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    for row in passed:
        account, level = row["account_id"], row["level"]
        noted = {"account": account, "level": level, "day": day}
        if await (await conn.execute(query("note_quota_warning"), noted)).fetchone() is None:
            continue
        event = "quota_reached" if level == LEVELS[-1] else "quota_near"
        await notices.notify(
            conn, account, event, level=level, used=row["used"], quota=row["quota"],
            resets_at=resets_at,
        )  # fmt: skip


async def _api_usage(
    conn: Connection, account: Account, today: date, days: int, key: int | None
) -> ApiUsage:
    values = {
        "account": account.id,
        "today": today,
        "since": today - timedelta(days=days),
        "key": key,
    }
    by_key = await (await conn.execute(query("requests_by_key"), values)).fetchall()
    by_day = await (await conn.execute(query("requests_by_day"), values)).fetchall()
    total = {
        name: sum(row[name] for row in by_key) for name in ("requests", "bytes_in", "bytes_out")
    }
    return ApiUsage(
        Requests(**total),
        [msgspec.convert(row, KeyRequests) for row in by_key],
        [msgspec.convert(row, DayRequests) for row in by_day],
    )


async def add_requests(conn: Connection, counted: dict[KeyDay, Requests]) -> None:
    """Add what an API process counted; whose account is gone is left out."""
    places, found = list(counted), list(counted.values())
    await conn.execute(
        query("add_requests"),
        {
            "accounts": [account for account, _, _ in places],
            "days": [day for _, day, _ in places],
            "keys": [key for _, _, key in places],
            "requests": [one.requests for one in found],
            "bytes_in": [one.bytes_in for one in found],
            "bytes_out": [one.bytes_out for one in found],
        },
    )


def _quota(plan: Plan, used: int, resets_at: datetime) -> Quota:
    limit = plan.points_per_day
    percent = None if not limit else round(100 * used / limit, 2)
    return Quota(used, limit, percent, resets_at)


async def _late_bucket(conn: Connection, account: Account, plan: Plan, now: datetime) -> LateBucket:
    if plan.points_per_day is None or plan.late_days is None:
        return LateBucket(None, None)
    limit = plan.points_per_day * plan.late_days
    found = await conn.execute(query("late_left"), {"account": account.id})
    row = await found.fetchone()
    if row is None or row["late_left"] is None:
        return LateBucket(limit, limit)
    passed_s = max(0.0, (now - row["late_at"]).total_seconds())
    left = row["late_left"] + passed_s * plan.points_per_day / 86_400
    return LateBucket(int(min(limit, left)), limit)
