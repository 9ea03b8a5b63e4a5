"""What devices have used of their plans in one flush, as `count_usage` takes it."""

from paqett.readings.directory import Entry
from paqett.readings.plain import Columns
from paqett.sqlfiles import array, word_array


class Used:
    """What one device's messages come to in this flush; times in µs. `columns` take its numbers."""

    __slots__ = (
        "bytes", "columns", "duplicates", "first_us", "last_us", "late", "messages", "points"
    )  # fmt: skip

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.messages = self.points = self.bytes = self.duplicates = self.late = 0
        self.first_us = self.last_us = 0

    def note_fresh(self, received_us: int) -> None:
        """A message of fresh readings."""
        if not self.first_us:
            self.first_us = received_us
        self.last_us = received_us


def usage_columns(by_entry: dict[Entry, Used]) -> dict[str, object]:
    """What `count_usage` takes, by device: arrays as PostgreSQL writes them, times in µs."""
    entries, used = list(by_entry), list(by_entry.values())
    buckets = [entry.bucket for entry in entries]
    return {
        "accounts": array([entry.account_id for entry in entries]),
        "devices": word_array([entry.device_id for entry in entries]),
        "messages": array([u.messages for u in used]),
        "points": array([u.points for u in used]),
        "bytes": array([u.bytes for u in used]),
        "duplicates": array([u.duplicates for u in used]),
        "late": array([u.late for u in used]),
        "first_fresh": array([u.first_us or None for u in used]),
        "last_fresh": array([u.last_us or None for u in used]),
        "tokens": array([None if b is None else b.tokens for b in buckets]),
        "tokens_at": array([None if b is None else b.at_us for b in buckets]),
    }
