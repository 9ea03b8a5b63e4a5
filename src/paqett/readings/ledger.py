"""The rejection ledger: every refused point counted, at most 10 payloads kept as examples."""

from collections import Counter
from datetime import UTC, datetime

from paqett.db import Connection
from paqett.readings.directory import Entry
from paqett.readings.incoming import Incoming, Outcome, Refusals
from paqett.readings.rejection import Rejection
from paqett.sqlfiles import query

MOST_EXAMPLES = 10  # product contract §3: for each device, code and hour
LATE_BUCKET_EMPTY = "the late bucket is empty; it refills all the time"
_EXCERPT_BYTES = 4096
_TOPIC_CHARACTERS = 256
# Codes the device's limits are behind; the others say nothing of a number.
_LIMITS = {
    "payload_too_large": "message_bytes",
    "metric_limit": "metrics_per_device",
    "rate_limited": "messages_per_second",
    "quota_thinned": "points_per_day",
    "quota_exceeded": "points_per_day",
}


class Ledger:
    """What one flush refuses."""

    def __init__(self) -> None:
        self.refused: dict[tuple[Entry, str], Refusals] = {}
        self._examples: list[tuple[Entry, Incoming, Rejection]] = []
        self._shown: Counter[tuple[Entry, str]] = Counter()

    def add(self, entry: Entry, message: Incoming, rejection: Rejection) -> None:
        """Note one refusal of `rejection.points` points."""
        if message.report is not None:
            message.report.rejected.append(rejection)
        key = entry, rejection.code
        refused = self.refused.get(key)
        if refused is None:
            refused = self.refused[key] = Refusals(first_us=message.received_us)
            _explain(refused, entry, rejection)
        refused.points += rejection.points
        refused.last_us = message.received_us
        self._shown[key] += 1
        if self._shown[key] <= MOST_EXAMPLES:
            self._examples.append((entry, message, rejection))

    async def save(self, conn: Connection, hour: datetime, outcome: Outcome) -> None:
        """Count and keep examples, in the readings' transaction; and tell `outcome`."""
        if not self.refused:
            return
        for (entry, code), refused in self.refused.items():
            outcome.rejected[code] += refused.points
            outcome.tell((entry.device_id, code), refused)
        await conn.execute(
            query("count_rejections"),
            {
                "hour": hour,
                "accounts": [entry.account_id for entry, _ in self.refused],
                "devices": [entry.device_id for entry, _ in self.refused],
                "codes": [code for _, code in self.refused],
                "points": [refused.points for refused in self.refused.values()],
            },
        )
        await conn.execute(query("keep_examples"), {"hour": hour, **self._example_columns()})

    def _example_columns(self) -> dict[str, object]:
        kept = self._examples
        return {
            "accounts": [entry.account_id for entry, *_ in kept],
            "devices": [entry.device_id for entry, *_ in kept],
            "codes": [rejection.code for *_, rejection in kept],
            "times": [
                datetime.fromtimestamp(message.received_us / 1e6, UTC) for _, message, _ in kept
            ],
            "topics": [_storable(message.topic) for _, message, _ in kept],
            "metrics": [rejection.metric for *_, rejection in kept],
            "details": [_storable(rejection.detail) for *_, rejection in kept],
            "payloads": [message.payload[:_EXCERPT_BYTES] for _, message, _ in kept],
            "sizes": [len(message.payload) for _, message, _ in kept],
            "most": MOST_EXAMPLES,
        }


def _explain(refused: Refusals, entry: Entry, rejection: Rejection) -> None:
    """The plan's figure; the late bucket has none: it refills all the time."""
    code = rejection.code
    if code not in _LIMITS or entry.plan is None or rejection.detail == LATE_BUCKET_EMPTY:
        return
    refused.limit = getattr(entry.plan, _LIMITS[code])
    if code.startswith("quota") and entry.gate is not None:
        refused.resets_us = entry.gate.resets_us


def _storable(text: str) -> str:
    """Short, and without what PostgreSQL's text cannot hold."""
    short = text[:_TOPIC_CHARACTERS].replace("\0", "\ufffd")
    return short.encode("utf-8", "replace").decode()
