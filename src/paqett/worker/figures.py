"""The database's own figures at the worker's `/metrics`."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from paqett import migrate, ops
from paqett.app import Services
from paqett.db import transaction
from paqett.errors import SchemaOutdatedError, Unavailable
from paqett.sqlfiles import query

EVERY_S = 60.0
TABLES_EVERY_S = 300.0

_bytes = Gauge("paqett_database_bytes", "Size of the whole database.")
_connections = Gauge("paqett_database_connections", "Connections to this database.")
_most = Gauge("paqett_database_max_connections", "How many the server takes, of all databases.")
_age = Gauge("paqett_database_transaction_id_age", "At 2 thousand million the server stops.")
_tables = Gauge(
    "paqett_table_bytes",
    "Size of a table with its indexes, a hypertable with its chunks.",
    ["table"],
)
_COUNTED = (
    ("transactions", "Transactions that ended.", "outcome", ("committed", "rolled_back")),
    ("blocks_read", "Blocks of 8 KiB read.", "from", ("memory", "disk")),
    ("deadlocks", "Deadlocks that the server ended.", None, ("deadlocks",)),
    ("temporary_bytes", "Written by sorts and hashes too large for memory.", None, ("temporary",)),
)


class _Counted(Collector):
    """What the server counts itself, as it was when last looked at."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        for name, about, label, columns in _COUNTED:
            labels = [label] if label else []
            family = CounterMetricFamily(f"paqett_database_{name}", about, labels=labels)
            for column in columns if self.last else ():
                family.add_metric([column] if label else [], self.last[column])
            yield family


_counted = _Counted()
REGISTRY.register(_counted)


async def look(services: Services) -> None:
    """Size, connections and the server's own counters."""
    async with transaction(services.pool, timeout_s=10) as conn:
        row = await (await conn.execute(query("unscoped_database_figures"))).fetchone()
    if row is None:
        return
    _bytes.set(row["bytes"])
    _connections.set(row["connections"])
    _most.set(row["most"])
    _age.set(row["age"])
    _counted.last = row


async def look_at_tables(services: Services) -> None:
    """What fills the disk, by table."""
    async with transaction(services.pool, timeout_s=60) as conn:
        rows = await (await conn.execute(query("unscoped_table_sizes"))).fetchall()
    for row in rows:
        _tables.labels(row["table_name"]).set(row["bytes"])


async def look_at_schema(services: Services) -> None:
    """Whether the database is there and this program fits it: what readiness says."""
    try:
        async with transaction(services.pool, timeout_s=5) as conn:
            ops.note_schema(await migrate.require_current(conn))
    except (SchemaOutdatedError, Unavailable) as error:
        ops.health.note("database", "failed", str(error))
    else:
        ops.health.note("database", "ok", "answers, with a schema that fits")
