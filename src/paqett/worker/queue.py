"""The queue's own upkeep: what a killed worker left, why jobs fail, how many there are."""

from collections.abc import Awaitable, Callable
from typing import Any

from procrastinate import App
from procrastinate.job_context import JobContext
from procrastinate.jobs import Status
from prometheus_client import Gauge

from paqett import jobs, log
from paqett.app import Services
from paqett.db import transaction
from paqett.errors import NotRetried, PaqettError

_logger = log.get("jobs")
_jobs = Gauge("paqett_jobs", "Jobs in the queue; those that are done are deleted.", ["status"])
# a worker's heart beats every 10 s, and one that was silent so long is dead
_SILENT_S = 30.0


class Unexpected(PaqettError):
    """Not foreseen; the traceback tells where. What it said is left out: it may be personal."""


class Abandoned(NotRetried):
    """A job that was in hand when its worker was killed, again and again."""


def noting_errors(services: Services) -> Callable[..., Awaitable[Any]]:
    """What stands around every job: keep why it failed, say so in one line."""

    async def note(call: Callable[[], Awaitable[Any]], context: JobContext, _: object) -> Any:
        try:
            return await call()
        except Exception as error:
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
        await jobs.forget_errors(conn)
    for status, number in counted.items():
        _jobs.labels(status).set(number)
