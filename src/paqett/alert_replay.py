"""When a rule would have fired: its condition over what is stored, as if it had been there."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from paqett.accounts import Account
from paqett.alert_rules import Rule
from paqett.conditions import OPERATORS, Condition, Episode, Reading, follow
from paqett.db import Connection
from paqett.readings.source import look
from paqett.sqlfiles import query, tier_query

_SPAN = timedelta(hours=24)
_MOST_TOLD = 1000


class Firing(msgspec.Struct, frozen=True):
    """One alert there would have been; `resolved_at` None: it would hold to the end."""

    device: str
    fired_at: datetime
    resolved_at: datetime | None
    value: float | None = None


class Replay(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """`[from, to)`; `fired` counts all alerts, of which the first 1,000 are in `items`."""

    fired: int
    from_: datetime
    to: datetime
    items: list[Firing]


async def replay(
    conn: Connection, account: Account, rule: Rule, devices: list[str] | None, now: datetime
) -> Replay:
    """The rule over the 24 hours before `now`, whether it is enabled or not.

    With `devices` on these alone. The time begins as if nothing had been before.
    """
    start = now - _SPAN
    if rule.kind == "threshold":
        found = await _thresholds(conn, account, rule, devices, start, now)
    elif rule.kind == "no_data":
        found = await _silences(conn, account, rule, devices, start, now)
    else:
        found = await _disconnections(conn, account, rule, devices, start, now)
    found.sort(key=lambda firing: (firing.fired_at, firing.device))
    return Replay(len(found), start, now, found[:_MOST_TOLD])


async def _read(
    conn: Connection, account: Account, name: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """What the query finds, again where a move between tiers began or ended meanwhile."""
    state = await look(conn, account)
    while True:
        moment = {
            **values,
            "account": account.id,
            "from": max(values["from"], state.oldest(values["to"])),
            "moving": state.moving_from is not None,
        }
        statement = tier_query(name, state.tier, state.moving_from)
        rows = await (await conn.execute(statement, moment)).fetchall()
        before, state = state, await look(conn, account)
        if state == before:
            return rows


async def _series(
    conn: Connection, account: Account, rule: Rule, devices: list[str] | None, *, texts: bool
) -> dict[str, list[int]]:
    """Series by device."""
    values = {
        "account": account.id, "device": rule.device_id, "metric": rule.metric, "texts": texts,
    }  # fmt: skip
    series: dict[str, list[int]] = {}
    for row in await (await conn.execute(query("rule_series"), values)).fetchall():
        if devices is None or row["device_id"] in devices:
            series.setdefault(row["device_id"], []).append(row["id"])
    return series


async def _thresholds(
    conn: Connection, account: Account, rule: Rule, devices: list[str] | None,
    start: datetime, now: datetime,
) -> list[Firing]:  # fmt: skip
    level = float(rule.threshold or 0)
    operator = str(rule.operator)
    clear = level if rule.clear is None else rule.clear
    condition = Condition(operator, level, clear, rule.for_ * 1_000_000)
    below, at, above = OPERATORS[operator]
    sides = {
        "below": below,
        "at": at,
        "above": above,
        "threshold": level,
        "clear": clear,
        "to": now,
    }
    found: list[Firing] = []
    series = await _series(conn, account, rule, devices, texts=False)
    for device, ids in series.items():
        for series_id in ids:
            wanted = {**sides, "series": series_id, "from": start}
            rows = await _read(conn, account, "replay_threshold", wanted)
            found += _follow(condition, device, rows, now)
    return found


def _follow(
    condition: Condition, device: str, rows: list[dict[str, Any]], now: datetime
) -> list[Firing]:
    readings = [Reading(row["time_us"], row["time_us"], row["value"]) for row in rows]
    ended, still_open, _ = follow(condition, None, readings)
    if still_open is not None:
        now_us = round(now.timestamp() * 1e6)
        if still_open.state == "pending" and still_open.due_us(condition) <= now_us:
            still_open.fire(still_open.due_us(condition))
        if still_open.state == "firing":
            ended.append(still_open)
    return [_firing(device, episode) for episode in ended]


def _firing(device: str, episode: Episode) -> Firing:
    resolved = _moment(episode.resolved_us) if episode.state == "resolved" else None
    return Firing(device, _moment(episode.fired_us), resolved, episode.value)


def _moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC) + timedelta(
        microseconds=time_us % 1_000_000
    )


async def _silences(
    conn: Connection, account: Account, rule: Rule, devices: list[str] | None,
    start: datetime, now: datetime,
) -> list[Firing]:  # fmt: skip
    found: list[Firing] = []
    series = await _series(conn, account, rule, devices, texts=True)
    if rule.device_id is not None and (devices is None or rule.device_id in devices):
        series.setdefault(rule.device_id, [])
    for device, ids in series.items():
        wanted = {"series": ids, "for": rule.for_, "from": start, "to": now}
        rows = await _read(conn, account, "replay_silence", wanted)
        found += [_gap(device, row["since"], row["next"], rule.for_, now) for row in rows]
    return found


def _gap(device: str, since: datetime, end: datetime, for_s: int, now: datetime) -> Firing:
    return Firing(device, since + timedelta(seconds=for_s), end if end < now else None)


async def _disconnections(
    conn: Connection, account: Account, rule: Rule, devices: list[str] | None,
    start: datetime, now: datetime,
) -> list[Firing]:  # fmt: skip
    values = {"account": account.id, "device": rule.device_id, "from": start, "to": now}
    rows = await (await conn.execute(query("rule_devices"), values)).fetchall()
    away = {
        row["id"]: start if row["kind"] == "disconnected" else None
        for row in rows
        if devices is None or row["id"] in devices
    }
    found: list[Firing] = []
    events = await (await conn.execute(query("replay_connections"), values)).fetchall()
    for event in events:
        device = event["device_id"]
        if device not in away:
            continue
        since = away[device]
        if event["kind"] == "disconnected":
            away[device] = since or event["time"]
        elif since is not None:
            found += _absence(device, since, event["time"], rule.for_, now)
            away[device] = None
    for device, since in away.items():
        if since is not None:
            found += _absence(device, since, now, rule.for_, now)
    return found


def _absence(
    device: str, since: datetime, end: datetime, for_s: int, now: datetime
) -> list[Firing]:
    long_enough = end - since >= timedelta(seconds=for_s)
    return [_gap(device, since, end, for_s, now)] if long_enough else []
