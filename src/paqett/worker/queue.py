"""The queue's own upkeep: what a killed worker left, why jobs fail, how many there are."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from procrastinate import App
from procrastinate.job_context import JobContext
from procrastinate.jobs import Status
from prometheus_client import Gauge, Histogram
from structlog.contextvars import bound_contextvars

from paqett import jobs, log, tracing
from paqett.app import Services
from paqett.db import transaction
from paqett.errors import NotRetried, PaqettError

_logger = log.get("jobs")
_jobs = Gauge("paqett_jobs", "Jobs in the queue; those that are done are deleted.", ["status"])
_waiting = Gauge(
    "paqett_jobs_oldest_waiting_seconds", "How long the job waits that was due longest ago."
)
_seconds = Histogram(
    "paqett_job_seconds", "How long jobs took, by how they ended.", ["task", "outcome"],
    buckets=[0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800],
)  # fmt: skip
# a worker's heart beats every 10 s, and one that was silent so long is dead
_SILENT_S = 30.0


class Unexpected(PaqettError):
    """Not foreseen; the traceback tells where. What it said is left out: it may be personal."""


class Abandoned(NotRetried):
    """A job that was in hand when its worker was killed, again and again."""


def noting_errors(services: Services) -> Callable[..., Awaitable[Any]]:
    """What stands around every job: keep why it failed, say so in one line."""

    async def note(call: Callable[[], Awaitable[Any]], context: JobContext, _: object) -> Any:
        began, task = time.monotonic(), context.job.task_name
        account = context.job.task_kwargs.get("account_id")
        try:
            with (
                bound_contextvars(job=context.job.id, task=task, account=account),
                tracing.span(f"job {task}", attempt=context.job.attempts + 1),
            ):
                done = await call()
            _seconds.labels(task, "done").observe(time.monotonic() - began)
            return done
        except Exception as error:
            _seconds.labels(task, "failed").observe(time.monotonic() - began)
            if context.job.id is not None:
                async with transaction(services.pool) as conn:
                    await jobs.note_error(conn, context.job.id, error, services.clock())
            attempt = context.job.attempts + 1
            _logger.warning(
                "failed", job=context.job.id, task=context.job.task_name, attempt=attempt,
                error=type(error).__name__,
            )  # fmt: skip
            if isinstance(error, PaqettError):
                raise
            # procrastinate logs what it is given, words and all
            raise Unexpected(type(error).__name__).with_traceback(error.__traceback__) from None

    return note


async def take_up(app: App, services: Services) -> int:
    """Jobs of workers that are dead become jobs to do; one that outlived no worker fails. How many.

    A job is idempotent, so one whose worker was only cut off does no harm when it runs again.
    """
    taken = 0
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_SILENT_S):
        if job.id is None:
            continue
        taken += 1
        if job.attempts >= jobs.MOST_ATTEMPTS:
            async with transaction(services.pool) as conn:
                lost = Abandoned("its worker was killed at every attempt")
                await jobs.note_error(conn, job.id, lost, services.clock())
            await app.job_manager.finish_job(job, status=Status.FAILED, delete_job=False)
        else:
            await app.job_manager.retry_job(job)
        _logger.warning("taken up", job=job.id, task=job.task_name, attempts=job.attempts)
    return taken


async def count(services: Services) -> None:
    """The metric, and the errors of jobs that are gone."""
    async with transaction(services.pool) as conn:
        counted = await jobs.counts(conn)
        _waiting.set(await jobs.oldest_waiting_s(conn))
        await jobs.forget_errors(conn)
    for status, number in counted.items():
        _jobs.labels(status).set(number)
