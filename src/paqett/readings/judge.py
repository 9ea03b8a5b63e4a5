"""Alert rules judge a flush's readings, in its transaction, after they are stored.

Only fresh readings count, in the order of their times: one that is late (`LATE_US`), or older than
what is stored or was judged of its series, neither begins nor ends anything. Readings there was no
room for are judged too; the newest of them is left in `alert_mark`, since it is not stored.

The whole flush is judged by columns first, so that rules that have nothing to say cost next to
nothing; what may be a transition is then looked at reading by reading.
"""

from copy import copy
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from paqett.conditions import Episode, Reading, follow
from paqett.db import Connection
from paqett.readings.directory import Directory, Entry
from paqett.readings.rules import Key, Open, Pair, Rules
from paqett.readings.seen import Fresh, Seen
from paqett.sqlfiles import query, tier_query

_FIRED, _RESOLVED = 1, 2


class _Change(msgspec.Struct):
    """What a flush makes of one (rule, device)."""

    pair: Pair
    ended: list[Episode]
    opened: Episode | None
    dropped: int | None  # the row of a pending one that came to nothing


async def judge(conn: Connection, directory: Directory, seen: Seen) -> None:
    """Let the rules judge what was `seen`; the caller's transaction commits."""
    rules = directory.rules
    versions = await _hold(conn, rules, seen.accounts)
    fresh = seen.fresh()
    changes = await _thresholds(conn, directory, versions, fresh)
    returned = _returned(directory, seen, versions, fresh)
    touched = {change.pair.account_id for change in changes} | {account for account, *_ in returned}
    if touched:
        await _save(conn, rules, changes, returned, sorted(touched))
    marks = seen.marks()
    if marks is not None:
        await conn.execute(query("mark_alert_readings"), marks)


async def _hold(conn: Connection, rules: Rules, account_ids: set[int]) -> dict[int, int]:
    """Lock the accounts and make their open alerts true; their versions."""
    values = {"accounts": sorted(account_ids)}
    rows = await (await conn.execute(query("lock_alert_accounts"), values)).fetchall()
    versions = {row["account_id"]: row["version"] for row in rows}
    stale = rules.stale(versions)
    if stale:
        found = await conn.execute(query("open_alerts"), {"accounts": stale})
        rules.replace({key: versions[key] for key in stale}, await found.fetchall())
    return versions


async def _thresholds(
    conn: Connection, directory: Directory, versions: dict[int, int], fresh: Fresh
) -> list[_Change]:
    pairs = directory.rules.pairs
    if not len(pairs.series) or not len(fresh.series):
        return []
    ordered = fresh.sorted_by_identity(pairs.series)
    candidates = [
        pair
        for pair in _candidates(directory.rules, versions, ordered)
        if _change(directory.rules, pair, ordered.of(pair.series_id)) is not None
    ]
    if not candidates:
        return []
    newest = await _newest(conn, directory, candidates, ordered)
    found = (
        _change(
            directory.rules, pair, _in_order(ordered.of(pair.series_id), newest[pair.series_id])
        )
        for pair in candidates
    )
    return [change for change in found if change is not None]


def _candidates(rules: Rules, versions: dict[int, int], ordered: Fresh) -> list[Pair]:
    """Pairs that may have a transition: beyond and nothing open, pending, or firing and cleared."""
    pairs = rules.pairs
    low = np.searchsorted(pairs.series, ordered.series, "left")
    count = np.searchsorted(pairs.series, ordered.series, "right") - low
    # each reading beside each of its series' rules
    row = np.repeat(np.arange(len(low)), count)
    start = np.repeat(np.cumsum(count) - count, count)
    place = low[row] + np.arange(len(row)) - start
    pending = np.zeros(len(pairs.pairs), bool)
    firing = np.zeros(len(pairs.pairs), bool)
    for account_id in versions:
        for key, opened in rules.open_alerts(account_id).items():
            if opened.kind == "threshold" and key in pairs.place:
                at = pairs.place[key]
                (pending if opened.episode.state == "pending" else firing)[at] = True
    values = ordered.values[row]
    beyond = pairs.beyond(place, values, pairs.threshold)
    cleared = ~pairs.beyond(place, values, pairs.clear)
    mask = np.where(firing[place], cleared, pending[place] | beyond)
    found = [pairs.pairs[at] for at in np.unique(place[mask]).tolist()]
    return [pair for pair in found if pair.account_id in versions]


def _change(rules: Rules, pair: Pair, readings: list[Reading]) -> _Change | None:
    """What the readings make of the pair; None for nothing."""
    opened = rules.open_alerts(pair.account_id).get(pair.key)
    before = None if opened is None else copy(opened.episode)
    state = None if before is None else before.state
    ended, now_open, dropped = follow(pair.condition, before, readings)
    gone = before.id if dropped and before is not None else None
    if (
        not ended
        and gone is None
        and now_open is before
        and (before is None or before.state == state)
    ):
        return None
    return _Change(pair, ended, now_open, gone)


async def _newest(
    conn: Connection, directory: Directory, candidates: list[Pair], ordered: Fresh
) -> dict[int, list[dict[str, Any]]]:
    """The newest rows of the candidates' series; own ones are among them."""
    found: dict[int, list[dict[str, Any]]] = {pair.series_id: [] for pair in candidates}
    by_tier: dict[tuple[str, str | None], dict[int, tuple[int, int, int]]] = {}
    for pair in candidates:
        entry = directory.get(pair.device_id)
        if entry is not None:
            own = ordered.of(pair.series_id)
            wanted = by_tier.setdefault((entry.tier, entry.moving_from), {})
            wanted[pair.series_id] = pair.account_id, len(own) + 1, own[0].time_us
    for where, wanted in by_tier.items():
        values = {
            "accounts": [account_id for account_id, *_ in wanted.values()],
            "series": list(wanted),
            "most": [most for _, most, _ in wanted.values()],
            "since": datetime.fromtimestamp(min(t for *_, t in wanted.values()) // 1_000_000, UTC),
            "moving": where[1] is not None,
        }
        for row in await (
            await conn.execute(tier_query("newest_readings", *where), values)
        ).fetchall():
            found[row["series_id"]].append(row)
    return found


def _in_order(readings: list[Reading], rows: list[dict[str, Any]]) -> list[Reading]:
    """Those newer than whatever was there before this flush; its own rows are among `rows`."""
    own = {reading.time_us for reading in readings}
    before = [row["time_us"] for row in rows if not (row["stored"] and row["time_us"] in own)]
    newest_us = max(before, default=-1)
    return [reading for reading in readings if reading.time_us > newest_us]


def _returned(
    directory: Directory, seen: Seen, versions: dict[int, int], fresh: Fresh
) -> list[tuple[int, Key, Episode]]:
    """Alerts of silence that a fresh reading ends: account, key, and the episode as it ended."""
    rules = directory.rules
    silent = [
        (account_id, key, opened)
        for account_id in versions
        for key, opened in rules.open_alerts(account_id).items()
        if opened.kind == "no_data"
    ]
    if not silent:
        return []
    heard = dict(zip(fresh.series.tolist(), fresh.received.tolist(), strict=True))
    heard |= {key: max(at, heard.get(key, 0)) for key, at in seen.texts.items()}
    ended = []
    for account_id, key, opened in silent:
        entry = directory.get(key[1])
        times = [] if entry is None else [heard[s] for s in _series(entry, opened) if s in heard]
        if times:
            episode = copy(opened.episode)
            episode.state, episode.resolved_us = "resolved", max(*times, episode.fired_us)
            ended.append((account_id, key, episode))
    return ended


def _series(entry: Entry, opened: Open) -> list[int]:
    if opened.metric is None:
        return [series_id for series_id, _ in entry.series.values()]
    known = entry.series.get(opened.metric)
    return [] if known is None else [known[0]]


async def _save(
    conn: Connection, rules: Rules, changes: list[_Change],
    returned: list[tuple[int, Key, Episode]], touched: list[int],
) -> None:  # fmt: skip
    """The transitions into the database, and into memory as they are there."""
    accounts = {"accounts": touched}
    dropped = [change.dropped for change in changes if change.dropped is not None]
    if dropped:
        await conn.execute(query("drop_pending_alerts"), {**accounts, "ids": dropped})
    kept: list[tuple[Episode, str]] = [(episode, "data_returned") for *_, episode in returned]
    begun: list[tuple[Pair, Episode]] = []
    for change in changes:
        for episode in (*change.ended, *([change.opened] if change.opened else [])):
            if episode.id is None:
                begun.append((change.pair, episode))
            else:
                kept.append((episode, "threshold"))
    if kept:
        await conn.execute(query("save_alerts"), {**accounts, **_kept_columns(kept)})
    ids = await _begin(conn, begun) if begun else {}
    for account_id, key, _ in returned:
        rules.open_alerts(account_id).pop(key, None)
    for change in changes:
        _remember(rules, change, ids)
    await conn.execute(query("bump_alert_versions"), accounts)
    rules.advance(touched)
    if any(_due(episode) for episode, _ in kept) or any(_due(episode) for _, episode in begun):
        await conn.execute(query("unscoped_wake_alerts"))


def _kept_columns(kept: list[tuple[Episode, str]]) -> dict[str, Any]:
    return {
        "ids": [episode.id for episode, _ in kept],
        "states": [episode.state for episode, _ in kept],
        "values": [episode.value for episode, _ in kept],
        "fired": [episode.fired_us or None for episode, _ in kept],
        "resolved": [episode.resolved_us or None for episode, _ in kept],
        "resolved_values": [episode.resolved_value for episode, _ in kept],
        "reasons": [reason for _, reason in kept],
        "due": [_due(episode) for episode, _ in kept],
    }


async def _begin(conn: Connection, begun: list[tuple[Pair, Episode]]) -> dict[Key, int]:
    """New rows; the ids of those that stay open."""
    values = {
        "accounts": [pair.account_id for pair, _ in begun],
        "rules": [pair.rule_id for pair, _ in begun],
        "devices": [pair.device_id for pair, _ in begun],
        "since": [episode.since_us for _, episode in begun],
        "received": [episode.received_us for _, episode in begun],
        **_kept_columns([(episode, "threshold") for _, episode in begun]),
    }
    rows = await (await conn.execute(query("begin_alerts"), values)).fetchall()
    return {
        (row["rule_id"], row["device_id"]): row["id"] for row in rows if row["state"] != "resolved"
    }


def _due(episode: Episode) -> int:
    if episode.state == "resolved":
        return _RESOLVED
    return _FIRED if episode.state == "firing" else 0


def _remember(rules: Rules, change: _Change, ids: dict[Key, int]) -> None:
    held, pair = rules.open_alerts(change.pair.account_id), change.pair
    if change.opened is None:
        held.pop(pair.key, None)
        return
    if change.opened.id is None:
        change.opened.id = ids.get(pair.key)
    held[pair.key] = Open("threshold", None, change.opened)
