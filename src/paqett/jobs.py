"""Jobs: rows written in the caller's transaction, worked by `paqett worker`.

procrastinate keeps them in PostgreSQL, so a job exists exactly when what it belongs to was
committed. Tasks are registered by the worker; here they are known by name alone. A job that is done
is gone; one that failed for good stays until somebody looks at it.
"""

import random
from datetime import datetime
from typing import Any

import msgspec
from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job
from procrastinate.types import TimeDeltaParams

from paqett.db import Connection, require_url
from paqett.errors import NotFound, NotRetried
from paqett.settings import Database
from paqett.sqlfiles import query

MOST_ATTEMPTS = 20
WEBHOOKS = "webhooks"
"""The queue of deliveries to other people's servers."""
EXPORTS = "exports"
"""The queue of archives, which take their time."""
_LONGEST_WAIT_S = 2 * 3600


class Backoff(BaseRetryStrategy):
    """Again after 2 s, 4 s, 8 s … 2 hours, a day in all, each a little less by chance.

    A `NotRetried` is believed.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to try again; None for never."""
        if isinstance(exception, NotRetried) or job.attempts >= MOST_ATTEMPTS:
            return None
        return RetryDecision(retry_in={"milliseconds": round(1000 * wait_s(job.attempts))})


def wait_s(attempts: int) -> float:
    """How long (s) to wait after so many attempts that were made before the last one."""
    longest = min(_LONGEST_WAIT_S, 2 ** (attempts + 1))
    # jobs that failed together do not come back together
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secret


class Failed(msgspec.Struct, frozen=True):
    """A job that is not tried again by itself; `error` is None where its task is unknown."""

    id: int
    task: str
    status: str
    attempts: int
    args: dict[str, Any]
    error: str | None
    at: datetime | None


def app(settings: Database) -> App:
    """The queue on its own small pool; open it with `async with app.open_async()`."""
    return App(connector=PsycopgConnector(conninfo=require_url(settings), min_size=1, max_size=8))


_deferring = App(connector=PsycopgConnector())


async def defer(
    conn: Connection, task: str, *, lock: str | None = None, queue: str = "default",
    after_s: float = 0, **kwargs: object,
) -> None:  # fmt: skip
    """Write the job `task` in the transaction of `conn`, to be done in `after_s` seconds.

    Jobs with one `lock` run one by one. What waits for others' servers has a `queue` of its own, so
    that nothing of ours waits behind it.
    """
    wait: TimeDeltaParams | None = {"milliseconds": round(1000 * after_s)} if after_s else None
    job = _deferring.configure_task(task, lock=lock, queue=queue, schedule_in=wait, connection=conn)
    await job.defer_async(**kwargs)  # type: ignore[arg-type]


async def counts(conn: Connection) -> dict[str, int]:
    """How many jobs there are of each status; todo, doing and failed in any case."""
    rows = await (await conn.execute(query("unscoped_job_counts"))).fetchall()
    return {"todo": 0, "doing": 0, "failed": 0} | {row["status"]: row["jobs"] for row in rows}


async def list_unfinished(conn: Connection) -> list[Failed]:
    """Jobs that failed, wait after a failure or are being worked, failed ones first."""
    rows = await (await conn.execute(query("unscoped_unfinished_jobs"))).fetchall()
    return [msgspec.convert(row, Failed) for row in rows]


async def failed_since(conn: Connection, since: datetime) -> list[Failed]:
    """Jobs that failed for good after `since`, oldest first."""
    rows = await conn.execute(query("unscoped_failed_jobs"), {"since": since})
    return [msgspec.convert(row, Failed) for row in await rows.fetchall()]


async def retry(conn: Connection, job_id: int) -> None:
    """Try a failed job again from its first attempt. Raises `NotFound`."""
    row = await (await conn.execute(query("unscoped_retry_job"), {"job": job_id})).fetchone()
    if row is None:
        raise NotFound(f"There is no failed job {job_id}.")


async def note_error(conn: Connection, job_id: int, error: BaseException, now: datetime) -> None:
    """Keep why a job failed.

    Our own errors in their own words; of others only what kind they were, since their words may
    hold what is personal.
    """
    ours = type(error).__module__.startswith("paqett.")
    text = f"{type(error).__name__}: {error}" if ours else type(error).__name__
    values = {"job": job_id, "error": text[:500], "now": now}
    await conn.execute(query("unscoped_note_job_error"), values)


async def oldest_waiting_s(conn: Connection) -> float:
    """How long (s) the job has waited that was due longest ago; 0 where none waits."""
    row = await (await conn.execute(query("unscoped_oldest_waiting_job"))).fetchone()
    return float(row["waited_s"]) if row else 0.0


async def forget_errors(conn: Connection) -> None:
    """Of jobs that are gone."""
    await conn.execute(query("unscoped_forget_job_errors"))
