"""Metrics of a device: what they are called, their unit and kind, and how one goes."""

from datetime import datetime
from typing import Any

import msgspec

from paqett import devices, jobs
from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import NotFound
from paqett.lists import Page
from paqett.sqlfiles import query

_LONGEST_NAME = 128


class Metric(msgspec.Struct, frozen=True):
    """A series of the device; `kind` is number, boolean or text."""

    metric: str
    kind: str
    label: str | None
    unit: str | None
    created_at: datetime


async def list_metrics(conn: Connection, account: Account, device_id: str) -> Page:
    """The device's metrics by name. Raises `NotFound`."""
    await devices.get(conn, account, device_id)
    values = {"account": account.id, "id": device_id}
    rows = await (await conn.execute(query("device_series"), values)).fetchall()
    return Page([msgspec.convert(row, Metric) for row in rows], None)


async def names(conn: Connection, account: Account, limit: int) -> list[str]:
    """What metrics of any device of the account are called, at most `limit`."""
    values = {"account": account.id, "limit": limit}
    rows = await (await conn.execute(query("metrics_of_account"), values)).fetchall()
    return [row["metric"] for row in rows]


async def update(
    conn: Connection, account: Account, device_id: str, metric: str, changes: dict[str, Any]
) -> Metric:
    """Change the named members of label, unit and kind; None clears label and unit.

    Readings stored before a change of kind stay, and raw reads give them as they were sent.
    Raises `NotFound`.
    """
    values = _key(account, device_id, metric)
    if "kind" in changes:
        # before the row's lock: it takes the directory's, and so does a deletion before the row's
        await conn.execute(query("set_metric_kind"), {**values, "kind": changes["kind"]})
    given: dict[str, Any] = {}
    for name in ("label", "unit"):
        given |= {name: changes.get(name), f"set_{name}": name in changes}
    row = await (await conn.execute(query("update_metric"), {**values, **given})).fetchone()
    if row is None:
        raise _not_found(metric)
    return msgspec.convert(row, Metric)


async def delete(conn: Connection, account: Account, device_id: str, metric: str) -> None:
    """The metric goes at once, its readings by a job. Raises `NotFound`."""
    values = _key(account, device_id, metric)
    row = await (await conn.execute(query("delete_metric"), values)).fetchone()
    if row is None:
        raise _not_found(metric)
    await jobs.defer(
        conn, "erase_series", lock=f"erase {device_id}",
        account_id=account.id, series_ids=[row["id"]],
    )  # fmt: skip


def _key(account: Account, device_id: str, metric: str) -> dict[str, Any]:
    if len(metric) > _LONGEST_NAME or not (metric + device_id).isprintable():
        raise _not_found(metric)
    return {"account": account.id, "id": device_id, "metric": metric.replace("/", ".")}


def _not_found(metric: str) -> NotFound:
    return NotFound(f"The device has no metric {metric[:_LONGEST_NAME]}.")
