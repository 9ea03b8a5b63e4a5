"""What a flush tells those who watch: its readings and refusals, by NOTIFY when it commits.

Only devices that somebody watches are looked at (`directory.Watch`), so a flush nobody watches
pays one comparison. A part is one device's, and below PostgreSQL's 8,000 bytes.
"""

from typing import Any

import msgspec
import numpy as np

from paqett.db import Connection
from paqett.readings.directory import Entry, Watch
from paqett.readings.incoming import Refusals
from paqett.readings.rows import Numbers, TextRow
from paqett.sqlfiles import query

_MOST_BYTES = 7500
_PARTS_AT_ONCE = 500

Identity = tuple[int, int]
Told = tuple[str, int, float | bool | str]  # metric, time in µs since 1970, value


class Part(msgspec.Struct, omit_defaults=True):
    """One notification. `status` says that the device's connection changed, and nothing more."""

    account: int
    device: str
    readings: list[Told] = []
    refused: dict[str, Refusals] = {}
    status: bool = False


class Feed:
    """Collects what one batch has for those who watch; `entries` are by message."""

    def __init__(self, watch: Watch, entries: list[Entry | None]) -> None:
        self._watch, self._entries = watch, entries
        self._seen = np.array([watch.sees(entry) for entry in entries], bool)
        self._found: dict[Entry, list[Told]] = {}
        self._names: dict[Entry, dict[int, tuple[str, str]]] = {}

    def numbers(self, found: Numbers, stored: set[Identity] | None = None) -> None:
        """Rows that went in: all of them, or those of `stored`."""
        for index in np.flatnonzero(self._seen[found.numbers]).tolist():
            series, time_us = int(found.series[index]), int(found.times[index])
            if stored is None or (series, time_us) in stored:
                value = float(found.values[index])
                self._add(int(found.numbers[index]), series, time_us, value)

    def texts(self, rows: list[TextRow], stored: set[Identity] | None = None) -> None:
        """The same for text values."""
        for series, time_us, number, value in rows:
            if self._seen[number] and (stored is None or (series, time_us) in stored):
                self._add(number, series, time_us, value)

    def _add(self, number: int, series_id: int, time_us: int, value: float | str) -> None:
        entry = self._entries[number]
        if entry is None:
            return
        names = self._names.get(entry)
        if names is None:
            names = {known: (metric, kind) for metric, (known, kind) in entry.series.items()}
            self._names[entry] = names
        metric, kind = names[series_id]
        told = bool(value) if kind == "boolean" else value
        self._found.setdefault(entry, []).append((metric, time_us, told))

    async def publish(self, conn: Connection, refused: dict[tuple[Entry, str], Refusals]) -> None:
        """Hand it to the transaction: it is heard when that commits, and never before."""
        parts = [part for entry, told in self._found.items() for part in _parts(entry, told)]
        parts += [
            Part(entry.account_id, entry.device_id, refused={code: refusals})
            for (entry, code), refusals in refused.items()
            if self._watch.sees(entry)
        ]
        if not parts:
            return
        channel = await (await conn.execute(query("unscoped_live_channel"))).fetchone()
        for start in range(0, len(parts), _PARTS_AT_ONCE):
            chunk = [msgspec.json.encode(part).decode() for part in parts[start:][:_PARTS_AT_ONCE]]
            values: dict[str, Any] = {"channel": channel and channel["name"], "parts": chunk}
            await conn.execute(query("unscoped_notify_live"), values)


def _parts(entry: Entry, told: list[Told]) -> list[Part]:
    """The device's readings, as many to a part as it holds."""
    parts: list[Part] = []
    room = 0
    for reading in told:
        size = len(msgspec.json.encode(reading)) + 1
        if size > room:
            parts.append(Part(entry.account_id, entry.device_id, []))
            room = _MOST_BYTES
        parts[-1].readings.append(reading)
        room -= size
    return parts
