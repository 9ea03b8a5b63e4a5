"""What no reading tells: that a pending alert's time has come, that nothing comes, that a device is
gone. The worker calls these every few seconds, in any number of processes.

Whatever is found is looked at once more while the account is held (`alert_watch`), as a flush does,
so a reading and a timer never both decide. Silence is counted only while we were there to hear:
after a gap of the worker, the database or ingest it is counted anew.
"""

from datetime import datetime, timedelta
from typing import Any

from paqett import notices
from paqett.conditions import IN_WORDS
from paqett.db import Connection
from paqett.sqlfiles import query, tier_query

GAP = timedelta(seconds=15)
_MOST_TOLD = 20


async def accounts_due(conn: Connection, now: datetime) -> list[int]:
    """Accounts with a pending alert whose time has come."""
    rows = await (await conn.execute(query("unscoped_due_alerts"), {"now": now})).fetchall()
    return [row["account_id"] for row in rows]


async def fire_due(conn: Connection, account_id: int, now: datetime) -> int:
    """Pending alerts of the account whose time has come begin to fire; how many."""
    await _hold(conn, account_id)
    values = {"account": account_id, "now": now}
    rows = await (await conn.execute(query("fire_due_alerts"), values)).fetchall()
    await _bump(conn, account_id, len(rows))
    return len(rows)


async def counting_from(conn: Connection, now: datetime) -> datetime:
    """Since when silence counts; call it at every look."""
    values = {"now": now, "since": now - GAP}
    row = await (await conn.execute(query("unscoped_look_alert_timer"), values)).fetchone()
    found: datetime = row["counting_from"] if row else now
    return found


async def accounts_unsettled(conn: Connection, since: datetime, now: datetime) -> list[int]:
    """Accounts in which silence or a connection has begun or ended something."""
    found = [*await _absent(conn, None, since, now), *await _settled(conn, None, now)]
    return sorted({row["account_id"] for row in found})


async def settle(conn: Connection, account_id: int, since: datetime, now: datetime) -> int:
    """Begin and end what silence and connections make of the account's rules; how many."""
    await _hold(conn, account_id)
    absent = await _absent(conn, account_id, since, now)
    begun = await conn.execute(
        query("begin_absences"),
        {
            "account": account_id,
            "rules": [row["rule_id"] for row in absent],
            "devices": [row["device_id"] for row in absent],
            "since": [row["since"] for row in absent],
            "now": now,
        },
    )
    settled = await _settled(conn, account_id, now)
    gone = [row["id"] for row in settled if row["state"] == "pending"]
    await conn.execute(query("drop_pending_alerts"), {"accounts": [account_id], "ids": gone})
    ended = await conn.execute(
        query("settle_alerts"),
        {
            "account": account_id,
            "ids": [row["id"] for row in settled],
            "reasons": [row["reason"] for row in settled],
            "resolved": [row["resolved_at"] for row in settled],
        },
    )
    changed = len(gone) + len(await begun.fetchall()) + len(await ended.fetchall())
    await _bump(conn, account_id, changed)
    return changed


async def _hold(conn: Connection, account_id: int) -> None:
    await conn.execute(query("lock_alert_accounts"), {"accounts": [account_id]})


async def _bump(conn: Connection, account_id: int, changed: int) -> None:
    if changed:
        await conn.execute(query("bump_alert_versions"), {"accounts": [account_id]})


async def _absent(
    conn: Connection, account_id: int | None, since: datetime, now: datetime
) -> list[dict[str, Any]]:
    values = {"account": account_id, "counting_from": since, "now": now}
    found = await (await conn.execute(query("unscoped_silent_devices"), values)).fetchall()
    found += await (await conn.execute(query("unscoped_offline_devices"), values)).fetchall()
    tiers = await (await conn.execute(query("unscoped_silent_tiers"), values)).fetchall()
    for row in tiers:
        statement = tier_query("unscoped_silent_metrics", row["tier"], row["moving_from"])
        more = {**values, **row, "moving": row["moving_from"] is not None}
        found += await (await conn.execute(statement, more)).fetchall()
    return found


async def _settled(conn: Connection, account_id: int | None, now: datetime) -> list[dict[str, Any]]:
    values = {"account": account_id, "now": now}
    return await (await conn.execute(query("unscoped_settled_alerts"), values)).fetchall()


async def tell(conn: Connection) -> int:
    """Make notices of some transitions, the oldest first; how many alerts they are of."""
    rows = await (
        await conn.execute(query("unscoped_untold_alerts"), {"limit": _MOST_TOLD})
    ).fetchall()
    for row in rows:
        for number in range(row["told"] + 1, row["due"] + 1):
            event = "alert_firing" if number == 1 else "alert_resolved"
            await notices.notify(conn, row["account_id"], event, **_data(row, event))
    if rows:
        told = {
            "ids": [row["id"] for row in rows],
            "accounts": [row["account_id"] for row in rows],
        }
        await conn.execute(query("note_alerts_told"), told)
    return len(rows)


def _data(row: dict[str, Any], event: str) -> dict[str, object]:
    fired = event == "alert_firing"
    return {
        "alert": row["id"],
        "rule_id": row["rule_id"],
        "rule": row["rule_name"],
        "rule_kind": row["kind"],
        "device": row["device_id"],
        "device_name": row["device_name"],
        "metric": row["metric"],
        "value": row["value"] if fired else row["resolved_value"],
        "unit": row["unit"],
        "what": _fired_words(row) if fired else _resolved_words(row),
        "since_time": row["since"],
        "fired_time": row["fired_at"],
        "resolved_time": None if fired else row["resolved_at"],
    }


def _fired_words(row: dict[str, Any]) -> str:
    if row["kind"] == "offline":
        return "The device is disconnected"
    if row["kind"] == "no_data":
        return f"Nothing fresh has come of {row['metric'] or 'the device'}"
    said = f"{row['metric']} is {_measured(row, row['value'])}"
    if row["operator"] is None or row["is_flag"]:
        return said
    return f"{said}, {IN_WORDS[row['operator']]} {_measured(row, row['threshold'])}"


def _resolved_words(row: dict[str, Any]) -> str:
    if row["reason"] == "online":
        return "The device is connected again"
    if row["reason"] == "data_returned":
        return f"{row['metric'] or 'The device'} sends again"
    if row["reason"] == "device_paused":
        return "The device is paused, since your plan has room for older ones only"
    if row["reason"] == "metric_gone":
        return f"{row['metric']} was deleted, or is no longer a number"
    return f"{row['metric']} is {_measured(row, row['resolved_value'])}, which is good again"


def _measured(row: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "unknown"
    if row["is_flag"]:
        return "true" if value else "false"
    return f"{value:.10g}{' ' + row['unit'] if row['unit'] else ''}"
