"""What every door's flushes say at `/metrics`. A point is one metric value."""

import time
from collections.abc import Iterator

import numpy as np
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from paqett import log
from paqett.readings.incoming import Outcome

_logger = log.get("ingest")
messages = Counter("paqett_ingest_messages_total", "Messages committed or refused.")
points = Counter("paqett_ingest_points_total", "Points, one metric value each.", ["outcome"])
rejected = Counter("paqett_ingest_rejected_points_total", "Points refused, by code.", ["code"])
batches = Counter("paqett_ingest_batches_total", "Flushes committed.")
flush_seconds = Histogram("paqett_ingest_flush_seconds", "From BEGIN to commit.")
flush_messages = Histogram(
    "paqett_ingest_flush_messages", "Messages in a flush.", buckets=[1, 10, 100, 1000, 5000, 20000]
)
flush_rows = Histogram(
    "paqett_ingest_flush_rows",
    "Points stored in a flush.",
    buckets=[1, 10, 100, 1000, 5000, 20_000, 100_000],
)
retries = Counter("paqett_ingest_flush_retries_total", "Flushes that failed and are tried again.")
database_up = Gauge("paqett_ingest_database_up", "1 while the last flush reached the database.")

_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86_400)


class _Lag(Collector):
    """A histogram that takes thousands of values at once."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_BOUNDS_S) + 1, np.int64)
        self._sum = 0.0

    def observe(self, seconds: np.ndarray) -> None:
        """Add the values, in seconds."""
        places = np.searchsorted(_BOUNDS_S, seconds)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(seconds.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For prometheus_client."""
        sums = self._counts.cumsum().tolist()
        bounds = [*map(str, _BOUNDS_S), "+Inf"]
        yield HistogramMetricFamily(
            "paqett_ingest_lag_seconds",
            "From the time a number was measured to its commit.",
            buckets=list(zip(bounds, sums, strict=True)),
            sum_value=self._sum,
        )


lag = _Lag()
REGISTRY.register(lag)


def note(outcome: Outcome, count: int, seconds: float) -> None:
    """One flush of `count` messages has been committed after `seconds`."""
    database_up.set(1)
    batches.inc()
    messages.inc(count)
    points.labels("stored").inc(outcome.stored)
    points.labels("duplicate").inc(outcome.duplicates)
    for code, number in outcome.rejected.items():
        rejected.labels(code).inc(number)
    if outcome.unknown:
        rejected.labels("unknown_device").inc(outcome.unknown)
    flush_seconds.observe(seconds)
    flush_messages.observe(count)
    flush_rows.observe(outcome.stored)
    now_us = time.time_ns() // 1000
    for times_us in outcome.measured_us:
        lag.observe(np.maximum(now_us - np.asarray(times_us), 0) / 1e6)
    _logger.debug(
        "flushed", messages=count, stored=outcome.stored, duplicates=outcome.duplicates,
        rejected=dict(outcome.rejected), ms=round(seconds * 1000, 1),
    )  # fmt: skip
