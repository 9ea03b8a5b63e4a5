"""Who ends each tier's chunks, and whether it happens: the same on both editions."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from paqett.db import Connection
from paqett.sqlfiles import query, tier_query

# Retention drops whole chunks: the worst age is retention + chunk + schedule.
SLACK = timedelta(days=1, hours=2)


class TierState(msgspec.Struct, frozen=True):
    """One tier as `paqett doctor` and `/readyz` show it; `jobs` are the policies' job rows.

    Chunks become columnstore `columnstore_after` where the edition has it.
    """

    name: str
    retention: timedelta
    retention_by: str
    oldest: datetime | None
    jobs: list[dict[str, Any]]
    columnstore_after: timedelta | None = None

    @property
    def by_worker(self) -> bool:
        """Whether the worker applies retention: there are no policies, or they rest."""
        return self.retention_by == "worker" or not all(job["scheduled"] for job in self.jobs)

    def overdue(self, now: datetime) -> bool:
        """Whether a reading is older than the policy should ever leave it."""
        return self.oldest is not None and now - self.oldest > self.retention + SLACK


async def states(conn: Connection) -> list[TierState]:
    """Every tier with its oldest reading and its policies."""
    tiers = await (await conn.execute(query("unscoped_tiers"))).fetchall()
    found = []
    for tier in tiers:
        name = tier["name"]
        oldest = await (await conn.execute(tier_query("unscoped_oldest_reading", name))).fetchone()
        jobs = await conn.execute(
            query("unscoped_policy_jobs"),
            {"tables": [f"telemetry_{name}", f"telemetry_{name}_text"]},
        )
        found.append(
            TierState(
                name,
                tier["retention"],
                tier["retention_by"],
                oldest["time"] if oldest else None,
                await jobs.fetchall(),
                tier["columnstore_after"],
            )
        )
    return found


async def apply(conn: Connection, tier: str) -> int:
    """Drop the chunks of `tier` that are wholly older than its retention; how many there were."""
    row = await (await conn.execute(query("unscoped_apply_retention"), {"tier": tier})).fetchone()
    return row["dropped"] if row else 0
