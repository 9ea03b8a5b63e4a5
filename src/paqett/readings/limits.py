"""What a plan allows: message rate, daily quota with thinning, late bucket (product contract, §5).

The state stands in the database, is read and written in the transaction of the readings, and is
therefore the same through every door, for any number of processes and after a restart. An account's
row of `allowance` is locked from the look to the commit. Devices' message rates stand in
`usage_hour`, which a flush writes anyway; a process that was the last to charge an account knows
them and need not read them again.

All times are µs since 1970, all amounts points unless said otherwise. What is admitted is taken
back where it turns out to be a duplicate: duplicates are free.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf

from paqett.db import Connection
from paqett.plans import Plan
from paqett.readings.directory import Directory, Entry
from paqett.sqlfiles import array, query

AHEAD_US = 600_000_000
"""A reading is at most 10 minutes ahead of its receipt (product contract §3)."""
LATE_US = 300_000_000
"""Older than 5 minutes at receipt: drawn from the late bucket, never from rate or quota."""
SLOT_US = 300_000_000
"""Past 100 % of the quota the first reading of a series in each aligned 5 minutes is kept."""
_HARD_STOP = 1.5
_DAY_US = 86_400_000_000
_NO_LIMIT = 1 << 60


class Bucket:
    """A device's message rate: `burst` messages, refilled at `rate` a second.

    Its clock is the time the readings were taken, never later than their receipt: a device that
    kept its rate while it was cut off may send what it kept at any speed. And in any order: what
    flows over while the clock goes on is `spare`, as much as is refilled until readings are late,
    for readings that come after younger ones. It is not in the database: a restart forgets it.
    """

    __slots__ = ("at_us", "burst", "rate", "spare", "tokens")

    def __init__(self, rate: float, burst: float, tokens: float, at_us: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at_us = float(tokens), at_us
        self.spare = 0.0

    def take(self, at_us: int) -> bool:
        """One message of readings taken at `at_us`; false where there is none left."""
        if at_us > self.at_us:
            tokens = self.tokens + (at_us - self.at_us) * self.rate / 1_000_000
            self.tokens = min(self.burst, tokens)
            most_spare = self.rate * LATE_US / 1_000_000
            self.spare = min(most_spare, self.spare + tokens - self.tokens)
            self.at_us = at_us
        elif at_us < self.at_us and self.spare >= 1:
            self.spare -= 1
            return True
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Gate:
    """One account during one flush. `used` are the day's points without late ones."""

    __slots__ = (
        "_kept_day",
        "account_id",
        "day",
        "hard",
        "late_at_us",
        "late_left",
        "limit",
        "used",
    )

    def __init__(self, account_id: int, plan: Plan, row: dict[str, object], now_us: int) -> None:
        self.account_id = account_id
        self.day = now_us // _DAY_US
        self.limit = _NO_LIMIT if plan.points_per_day is None else plan.points_per_day
        self.hard = int(self.limit * _HARD_STOP)
        self.used: int = row["used"]  # type: ignore[assignment]
        self._kept_day: bool = row["past"]  # type: ignore[assignment]
        most = inf if plan.late_days is None else float(self.limit * plan.late_days)
        late_at_us: int = row["late_at_us"] or now_us  # type: ignore[assignment]
        left = most if row["late_left"] is None else float(row["late_left"])  # type: ignore[arg-type]
        refilled = max(0, now_us - late_at_us) * self.limit / _DAY_US
        self.late_left = min(most, left + refilled)
        self.late_at_us = max(late_at_us, now_us)

    def admit(self, points: int) -> bool:
        """Fresh points within the quota, all or none."""
        if self.used + points > self.limit:
            return False
        self.used += points
        return True

    def admit_thinned(self) -> bool:
        """One point past the quota, before the hard stop."""
        if self.used >= self.hard:
            return False
        self.used += 1
        return True

    def admit_late(self, points: int) -> bool:
        """Late points, all or none."""
        if self.late_left < points:
            return False
        self.late_left -= points
        return True

    def admit_one(self, *, late: bool) -> bool:
        """One point."""
        return self.admit_late(1) if late else self.admit(1)

    def take_back(self, points: int, *, late: bool) -> None:
        """Points that were admitted and are duplicates, or were refused after all."""
        if late:
            self.late_left += points
        else:
            self.used -= points

    @property
    def resets_us(self) -> int:
        """When the day's quota begins anew."""
        return (self.day + 1) * _DAY_US

    @property
    def used_of_day(self) -> int | None:
        """What is to be written; None where the row is already of a later day."""
        return None if self._kept_day else self.used


async def open_gates(
    conn: Connection, directory: Directory, entries: Iterable[Entry], now_us: int
) -> dict[int, Gate]:
    """Lock the allowances of the entries' accounts, where their plans limit anything.

    `now_us` is a time of receipt; it decides the day. Sets each entry's `gate` and `bucket`.
    """
    limited = [entry for entry in entries if entry.limited]
    plans = {entry.account_id: entry.plan for entry in limited if entry.plan is not None}
    if not plans:
        return {}
    values = {
        "accounts": array(sorted(plans)),
        "day": datetime.fromtimestamp(now_us // _DAY_US * 86_400, UTC),
        "now": datetime.fromtimestamp(now_us / 1e6, UTC),
        "writer": directory.writer,
    }
    rows = await (await conn.execute(query("lock_allowances"), values)).fetchall()
    if len(rows) < len(plans):
        await conn.execute(query("make_allowances"), values)
        rows = await (await conn.execute(query("lock_allowances"), values)).fetchall()
    if any(row["past"] for row in rows):
        # counters as they are under the lock, not as they were while it was waited for
        rows = await (await conn.execute(query("lock_allowances"), values)).fetchall()
    gates = {}
    for row in rows:
        account_id = row["account_id"]
        gates[account_id] = Gate(account_id, plans[account_id], row, now_us)
        if not row["mine"]:
            directory.distrust(account_id)
    stale = [entry for entry in limited if entry.trust != directory.trust(entry.account_id)]
    if stale:
        await _load_buckets(conn, stale, values["now"], now_us)
        for entry in stale:
            entry.trust = directory.trust(entry.account_id)
    for entry in limited:
        entry.gate = gates.get(entry.account_id)
    return gates


async def _load_buckets(conn: Connection, entries: list[Entry], now: object, now_us: int) -> None:
    found = await conn.execute(
        query("message_tokens"),
        {
            "accounts": [entry.account_id for entry in entries],
            "devices": [entry.device_id for entry in entries],
            "now": now,
        },
    )
    rows = {row["device_id"]: row for row in await found.fetchall()}
    for entry in entries:
        plan = entry.plan
        if plan is None or plan.messages_per_second is None:
            continue
        rate = plan.messages_per_second
        burst = plan.message_burst or rate
        row = rows.get(entry.device_id)
        if row is None:
            # full since the oldest reading that draws on it
            entry.bucket = Bucket(rate, burst, burst, now_us - LATE_US)
        else:
            entry.bucket = Bucket(rate, burst, row["tokens"], row["tokens_at_us"])


async def save_gates(conn: Connection, directory: Directory, gates: dict[int, Gate]) -> None:
    """Leave what the flush has used, once its duplicates are known."""
    if not gates:
        return
    found = gates.values()
    await conn.execute(
        query("save_allowances"),
        {
            "accounts": array(gates),
            "day": datetime.fromtimestamp(next(iter(found)).day * 86_400, UTC),
            "used": array(gate.used_of_day for gate in found),
            "late_left": array(gate.late_left for gate in found),
            "late_at": array(gate.late_at_us for gate in found),
            "writer": directory.writer,
        },
    )
