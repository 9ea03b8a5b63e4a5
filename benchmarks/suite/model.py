"""The capacity model: what so many devices need of each resource, and which of them ends first.

Assumed: each device sends a message of 3 metrics a minute, and is looked at once an hour. The
machine that limits are of has 16 of the cores the costs were measured on.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

GROUPS = ("mosquitto", "ingest", "postgres, ingest's", "postgres, rest", "broker")

MESSAGES_A_MINUTE = 1.0
METRICS = 3
QUERIES_AN_HOUR = 1.0
DAYS = 90
CORES, MEMORY_BYTES, DISK_BYTES = 16, 64e9, 4e12
NETWORK_BYTES, WRITE_BYTES = 1e9 / 8, 200e6  # a second
OPEN_FILES = 1_048_576  # Linux's own limit for a process
STORM_S = 300.0  # after which a storm should be over


@dataclass(frozen=True)
class Costs:
    """Measured. `cpu` is seconds for each second, message and reading, of each group."""

    cpu: dict[str, list[float]]
    wire_bytes_a_message: float
    wal_bytes_a_reading: float
    disk_bytes_a_reading: float
    query_cpu: dict[str, float] = field(default_factory=dict)
    ingest_bytes: int = 0
    connections_per_second: float | None = None
    mosquitto_bytes_a_device: float = 0.0
    ingest_bytes_a_device: float = 0.0

    def report(self) -> dict[str, Any]:
        """CPU in microseconds, a second's in milliseconds."""
        cpu = {
            name: {
                "ms_a_second": round(1e3 * second, 2), "us_a_message": round(1e6 * message, 2),
                "us_a_reading": round(1e6 * reading, 3),
            }
            for name, (second, message, reading) in self.cpu.items()
        }  # fmt: skip
        query = {f"{name}_ms": round(1e3 * value, 3) for name, value in self.query_cpu.items()}
        rest = {key: value for key, value in asdict(self).items() if not key.endswith("cpu")}
        rounded = {key: value and round(value, 1) for key, value in rest.items()}
        return {"cpu": cpu, "query_cpu": query, **rounded}

    def cores(self, group: str, messages: float) -> float:
        """Cores that a group keeps busy at so many messages a second."""
        second, message, reading = self.cpu[group]
        return second + messages * (message + METRICS * reading)


def _need(name: str, need: float, limit: float, unit: str) -> dict[str, Any]:
    return {
        "name": name, "need": float(f"{need:.3g}"), "limit": float(f"{limit:.3g}"), "unit": unit,
        "share": float(f"{need / limit:.3g}"),
    }  # fmt: skip


def size(costs: Costs, devices: int) -> dict[str, Any]:
    """Every need of `devices` against the limit of one machine, or of one process of it."""
    messages = devices * MESSAGES_A_MINUTE / 60
    readings, queries = messages * METRICS, devices * QUERIES_AN_HOUR / 3600
    cores = {group: costs.cores(group, messages) for group in GROUPS}
    api = queries * costs.query_cpu.get("api", 0.0)
    asked = queries * costs.query_cpu.get("postgres", 0.0)
    memory = costs.ingest_bytes + devices * (
        costs.mosquitto_bytes_a_device + costs.ingest_bytes_a_device
    )
    needs = [
        _need("Mosquitto, one thread", cores["mosquitto"], 1, "cores"),
        _need("ingest, one active process", cores["ingest"], 1, "cores"),
        _need("PostgreSQL, ingest's two writers", cores["postgres, ingest's"], 2, "cores"),
        _need("API and its queries", api + asked, CORES, "cores"),
        _need("all processes", sum(cores.values()) + api + asked, CORES, "cores"),
        _need("Mosquitto's connections", devices, OPEN_FILES, "open files"),
        _need(
            f"disk for {DAYS} days, no columnstore",
            readings * costs.disk_bytes_a_reading * 86_400 * DAYS / 1e12, DISK_BYTES / 1e12, "TB",
        ),
        _need("WAL", readings * costs.wal_bytes_a_reading / 1e6, WRITE_BYTES / 1e6, "MB/s"),
        _need(
            "network, all hops", messages * costs.wire_bytes_a_message / 1e6,
            NETWORK_BYTES / 1e6, "MB/s",
        ),
    ]  # fmt: skip
    if costs.connections_per_second:
        storm = devices / costs.connections_per_second
        needs.append(_need("a reconnect storm", storm, STORM_S, "s"))
        needs.append(_need("memory of broker and ingest", memory / 1e9, MEMORY_BYTES / 1e9, "GB"))
    needs.sort(key=lambda need: -need["share"])
    besides = next(need for need in needs if not need["name"].startswith("disk"))
    return {
        "devices": devices, "messages_per_second": round(messages),
        "readings_per_second": round(readings), "first": needs[0]["name"],
        "first_besides_disk": besides["name"], "needs": needs,
    }  # fmt: skip
