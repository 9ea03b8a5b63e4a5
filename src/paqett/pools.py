"""What `/metrics` says of a process's pools of connections."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import AsyncConnectionPool

_COUNTERS = (
    ("requests", "requests_num", 1.0, "Connections asked for."),
    ("waits", "requests_queued", 1.0, "Times somebody had to wait for one."),
    ("wait_seconds", "requests_wait_ms", 1000.0, "How long they waited, together."),
    ("timeouts", "requests_errors", 1.0, "Times nobody was served in time."),
    ("connect_failures", "connections_errors", 1.0, "Attempts to connect that failed."),
)


class _Pools(Collector):
    def __init__(self) -> None:
        self._named: WeakKeyDictionary[AsyncConnectionPool[Any], str] = WeakKeyDictionary()

    def watch(self, pool: AsyncConnectionPool[Any], name: str) -> None:
        """Count `pool` under `name`."""
        self._named[pool] = name

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        stats = {name: pool.get_stats() for pool, name in list(self._named.items())}
        size = GaugeMetricFamily(
            "paqett_database_pool_connections",
            "Connections to the database in a pool.",
            labels=["pool", "state"],
        )
        for name, found in stats.items():
            idle = found.get("pool_available", 0)
            size.add_metric([name, "idle"], idle)
            size.add_metric([name, "busy"], found.get("pool_size", 0) - idle)
        yield size
        for suffix, key, unit, about in _COUNTERS:
            family = CounterMetricFamily(f"paqett_database_pool_{suffix}", about, labels=["pool"])
            for name, found in stats.items():
                family.add_metric([name], found.get(key, 0) / unit)
            yield family


_pools = _Pools()
REGISTRY.register(_pools)
watch = _pools.watch
