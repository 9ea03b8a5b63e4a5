"""What a flush knows about devices and series without asking: memory kept true by one number.

Whoever changes a tier, deletes a device or alters a series' kind takes the directory's lock
exclusively and appends to `directory_change`; a flush holds the lock shared and compares versions
(`sql/migrations/0001_foundation.sql`). A stale directory is therefore never written from.
"""

from collections.abc import Iterable

from paqett.db import Connection
from paqett.plans import Plan
from paqett.sqlfiles import query

Series = tuple[int, str]  # id, kind


class Entry:
    """One device: its account, the tier its readings go to, and its series by metric."""

    __slots__ = (
        "account_id", "device_id", "last_us", "metrics_limit", "moving_from", "retention_us",
        "series", "tier", "use_device_clock",
    )  # fmt: skip

    def __init__(self, row: dict[str, object], metrics_limit: int | None) -> None:
        self.device_id = str(row["device_id"])
        self.account_id: int = row["account_id"]  # type: ignore[assignment]
        self.tier = str(row["tier"])
        self.moving_from: str | None = row["moving_from"]  # type: ignore[assignment]
        self.retention_us: int = row["retention_us"]  # type: ignore[assignment]
        self.use_device_clock = row["clock"] == "device"
        self.metrics_limit = metrics_limit
        self.series: dict[str, Series] = {}
        self.last_us = 0

    def stamp(self, received_us: int) -> int:
        """A time of receipt in µs, later than any this device had before."""
        return received_us if received_us > self.last_us else self.last_us + 1


class Directory:
    """Devices by id. Not shared between processes; each keeps its own true."""

    def __init__(self, plans: dict[str, Plan]) -> None:
        self._plans = plans
        self._entries: dict[str, Entry] = {}
        self._version = -1

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, device_id: str) -> Entry | None:
        """The device, or None where it does not exist (or was not loaded)."""
        return self._entries.get(device_id)

    async def refresh(self, conn: Connection, device_ids: Iterable[str]) -> None:
        """Make the entries of `device_ids` true for the transaction `conn` is in."""
        await conn.execute(query("lock_directory_shared"))
        row = await (await conn.execute(query("unscoped_directory_version"))).fetchone()
        version: int = row["version"] if row else 0
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
        devices = {change["device_id"] for change in changes if change["device_id"]}
        accounts = {change["account_id"] for change in changes if not change["device_id"]}
        for device_id in devices:
            self._entries.pop(device_id, None)
        if accounts:
            self._entries = {
                device_id: entry
                for device_id, entry in self._entries.items()
                if entry.account_id not in accounts
            }

    async def _load(self, conn: Connection, device_ids: list[str]) -> None:
        found = await conn.execute(query("unscoped_directory_devices"), {"devices": device_ids})
        for row in await found.fetchall():
            plan = self._plans.get(row["plan"])
            limit = plan.metrics_per_device if plan else None
            self._entries[row["device_id"]] = Entry(row, limit)
        await self.load_series(conn, device_ids)

    async def load_series(self, conn: Connection, device_ids: list[str]) -> None:
        """Read the series of loaded devices anew."""
        found = await conn.execute(query("unscoped_directory_series"), {"devices": device_ids})
        for row in await found.fetchall():
            entry = self._entries.get(row["device_id"])
            if entry is not None:
                entry.series[row["metric"]] = (row["id"], row["kind"])

    def forget(self, device_ids: Iterable[str]) -> None:
        """Drop entries that a rolled-back transaction may have made untrue."""
        for device_id in device_ids:
            self._entries.pop(device_id, None)
