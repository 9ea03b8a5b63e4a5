"""What `/metrics` of ingest says beside its flushes (`flush/metrics.py`)."""

import math

from prometheus_client import Counter, Gauge, Histogram

acknowledge_seconds = Histogram(
    "paqett_ingest_acknowledge_seconds",
    "From the receipt of a batch's oldest message to its acknowledgement.",
    buckets=[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10],
)
active = Gauge("paqett_ingest_active", "1 in the process that reads, 0 in one standing by.")
unacknowledged = Gauge("paqett_ingest_unacknowledged", "Messages in hand, not acknowledged.")
connected = Gauge("paqett_ingest_broker_connected", "1 while subscribed.")
_broker_dropped = Gauge(
    "paqett_ingest_broker_dropped_messages",
    "What the broker says it has dropped since its start; NaN before it has said so.",
)
# At 0 a process that starts behind a broker that dropped something long ago would raise the alarm.
_broker_dropped.set(math.nan)
spooling = Gauge("paqett_ingest_spooling", "1 while messages go to the spool first.")
spool_bytes = Gauge("paqett_ingest_spool_bytes", "Bytes in the spool that are not stored yet.")
spool_full = Gauge("paqett_ingest_spool_full", "1 while the spool takes nothing.")
spooled = Counter("paqett_ingest_spooled_messages_total", "Messages acknowledged from the spool.")
spool_corrupt = Gauge("paqett_ingest_spool_corrupt_records", "Records the spool could not read.")


def note_dropped(messages: int | None) -> None:
    """What the broker has said, if it has."""
    if messages is not None:
        _broker_dropped.set(messages)
