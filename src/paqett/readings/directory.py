"""What a flush knows about devices and series without asking: memory kept true by one number.

Whoever changes a tier, deletes a device or alters a series' kind takes the directory's lock
exclusively and appends to `directory_change`; a flush holds the lock shared and compares versions
(`sql/migrations/0001_foundation.sql`). A stale directory is therefore never written from.
"""

import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from paqett.conditions import Condition
from paqett.db import Connection
from paqett.plans import Plan
from paqett.readings.rules import Pair, Rules
from paqett.sqlfiles import query

Series = tuple[int, str]  # id, kind


class Entry:
    """One device: its account and plan, the tier its readings go to, and its series by metric.

    `numbers` and `flags` are the ids of its series of these kinds once more, for the fast path.
    `gate` and `bucket` are the flush's (see `limits`); the bucket is true while `trust` is the
    directory's for the account. `judged` says that an alert rule is about the device, `closing`
    that its account is being deleted: nothing of it is stored.
    """

    __slots__ = (
        "account_id", "bucket", "closing", "device_id", "flags", "gate", "judged", "limited",
        "moving_from", "numbers", "plan", "retention_us", "series", "tier", "trust",
        "use_device_clock", "used_at_us",
    )  # fmt: skip

    def __init__(self, row: dict[str, object], plan: Plan | None) -> None:
        self.device_id = str(row["device_id"])
        self.account_id: int = row["account_id"]  # type: ignore[assignment]
        self.tier = str(row["tier"])
        self.moving_from: str | None = row["moving_from"]  # type: ignore[assignment]
        self.retention_us: int = row["retention_us"]  # type: ignore[assignment]
        self.use_device_clock = row["clock"] == "device"
        self.closing = bool(row["closing"])
        self.plan = plan
        self.limited = plan is not None and plan.limits_ingest
        self.series: dict[str, Series] = {}
        self.numbers: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.gate: Any = None
        self.bucket: Any = None
        self.trust = -1
        self.used_at_us = 0
        self.judged = False

    def learn(self, metric: str, series_id: int, kind: str) -> None:
        """A series of this device, read from the database."""
        self.series[metric] = (series_id, kind)
        self.numbers.pop(metric, None)
        self.flags.pop(metric, None)
        if kind == "number":
            self.numbers[metric] = series_id
        elif kind == "boolean":
            self.flags[metric] = series_id

    def room(self) -> int:
        """How many metrics more the plan allows."""
        most = None if self.plan is None else self.plan.metrics_per_device
        return 1 << 30 if most is None else most - len(self.series)


class Watch(msgspec.Struct, frozen=True):
    """Whose readings somebody is looking at just now: whole accounts, and single devices."""

    accounts: frozenset[int]
    devices: frozenset[str]

    def sees(self, entry: Entry | None) -> bool:
        """Whether the device's readings are to be told."""
        return entry is not None and (
            entry.account_id in self.accounts or entry.device_id in self.devices
        )


NOBODY = Watch(frozenset(), frozenset())


class Directory:
    """Devices by id, for one connection: what a transaction has not committed is in it too.

    `writer` names it where flushes leave a mark. `doubt` counts the flushes that still expect
    duplicates, after one had some. `watch` is who looks on, as of the last `refresh`.
    """

    def __init__(self, plans: dict[str, Plan]) -> None:
        self._plans = plans
        self._entries: dict[str, Entry] = {}
        self._version = -1
        self._distrusted: dict[int, int] = {}
        self.writer = secrets.token_hex(8)
        self.doubt = 0
        self.watch = NOBODY
        self.rules = Rules()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, device_id: str) -> Entry | None:
        """The device, or None where it does not exist (or was not loaded)."""
        return self._entries.get(device_id)

    def trust(self, account_id: int) -> int:
        """How often another process has been seen to charge the account."""
        return self._distrusted.get(account_id, 0)

    def distrust(self, account_id: int) -> None:
        """Another process has charged the account: no device's message rate is known any more."""
        self._distrusted[account_id] = self.trust(account_id) + 1

    def expire(self, before_us: int) -> None:
        """Forget devices that have sent nothing since, so that memory follows the active ones."""
        self.forget([key for key, entry in self._entries.items() if entry.used_at_us < before_us])

    async def refresh(self, conn: Connection, device_ids: Iterable[str]) -> None:
        """Make the entries of `device_ids` true for the transaction `conn` is in."""
        async with (
            conn.pipeline()
        ):  # two statements, since the second must see what the first awaits
            await conn.execute(query("lock_directory_shared"))
            found = await conn.execute(query("unscoped_directory_version"))
        row = await found.fetchone()
        version: int = row["version"] if row else 0
        self.watch = NOBODY
        if row and (row["accounts"] or row["devices"]):
            devices = frozenset(row["devices"] or ()) - {None}
            self.watch = Watch(frozenset(row["accounts"] or ()), devices)
        if version != self._version:
            await self._forget_changed(conn)
            self._version = version
        missing = [device_id for device_id in device_ids if device_id not in self._entries]
        if missing:
            await self._load(conn, missing)

    async def _forget_changed(self, conn: Connection) -> None:
        if self._version < 0:
            return
        found = await conn.execute(query("unscoped_directory_changes"), {"version": self._version})
        changes = await found.fetchall()
        self.forget({change["device_id"] for change in changes if change["device_id"]})
        accounts = {change["account_id"] for change in changes if not change["device_id"]}
        if 0 in accounts:  # older changes than these are forgotten
            self.forget(list(self._entries))
        elif accounts:
            self.forget([k for k, entry in self._entries.items() if entry.account_id in accounts])

    async def _load(self, conn: Connection, device_ids: list[str]) -> None:
        found = await conn.execute(query("unscoped_directory_devices"), {"devices": device_ids})
        for row in await found.fetchall():
            self._entries[row["device_id"]] = Entry(row, self._plans.get(row["plan"]))
        await self.load_series(conn, device_ids)

    async def load_series(self, conn: Connection, device_ids: list[str]) -> None:
        """Read the series of loaded devices anew."""
        found = await conn.execute(query("unscoped_directory_series"), {"devices": device_ids})
        for row in await found.fetchall():
            entry = self._entries.get(row["device_id"])
            if entry is not None:
                entry.learn(row["metric"], row["id"], row["kind"])
        await self._load_rules(conn, device_ids)

    async def _load_rules(self, conn: Connection, device_ids: list[str]) -> None:
        found = await conn.execute(query("unscoped_directory_rules"), {"devices": device_ids})
        pairs: dict[str, list[Pair]] = {}
        for row in await found.fetchall():
            of = pairs.setdefault(row["device_id"], [])
            if row["series_id"] is not None:
                condition = Condition(
                    row["operator"], row["threshold"], row["clear"], row["for_us"]
                )
                of.append(
                    Pair(
                        row["rule_id"], row["device_id"], row["account_id"], row["series_id"],
                        condition,
                    )
                )  # fmt: skip
        for device_id in device_ids:
            entry = self._entries.get(device_id)
            if entry is not None:
                self._unlearn(entry)
                if device_id in pairs:
                    entry.judged = True
                    self.rules.learn(entry.account_id, pairs[device_id])

    def _unlearn(self, entry: Entry) -> None:
        if entry.judged:
            entry.judged = False
            self.rules.forget(entry.account_id, (key for key, _ in entry.series.values()))

    def forget(self, device_ids: Iterable[str]) -> None:
        """Drop entries that have gone out of use, or may be untrue after a rollback."""
        for device_id in device_ids:
            entry = self._entries.pop(device_id, None)
            if entry is not None:
                self._unlearn(entry)
