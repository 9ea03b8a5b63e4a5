"""`paqett worker`: procrastinate's worker with our tasks, and a round of upkeep."""

import asyncio
from datetime import timedelta

from procrastinate import App, RetryStrategy
from prometheus_client import Gauge
from psycopg import Error

from paqett import jobs, log, moves, retention
from paqett.app import Services, services, until_stopped, wait_for_database
from paqett.db import transaction
from paqett.errors import PaqettError
from paqett.readings import buckets
from paqett.settings import Settings
from paqett.sqlfiles import query

_logger = log.get("worker")
_oldest = Gauge("paqett_tier_oldest_reading_age_seconds", "Age of the oldest reading.", ["tier"])
_overdue = Gauge(
    "paqett_tier_overdue", "1 where readings outlive retention + chunk + schedule.", ["tier"]
)
_RETRY = RetryStrategy(max_attempts=20, exponential_wait=3)
_MOVES_EVERY_S = 2.0
_FORGET_EVERY_S = 600.0
_EXAMPLES_KEPT = timedelta(days=7)  # product contract §3: the rejection ledger


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop`; a job in hand is finished first."""
    await wait_for_database(settings, stop)
    if stop.is_set():
        return
    app = jobs.app(settings.database)
    async with services(settings, "worker") as open_services, app.open_async():
        register(app, open_services)
        working = asyncio.create_task(
            app.run_worker_async(
                concurrency=settings.worker.concurrency, install_signal_handlers=False
            )
        )
        upkeep = [
            asyncio.create_task(
                _every(settings.worker.retention_every_s, watch_retention, open_services)
            ),
            asyncio.create_task(_every(_MOVES_EVERY_S, move_readings, open_services)),
            asyncio.create_task(_every(_FORGET_EVERY_S, forget_examples, open_services)),
        ]
        await until_stopped([working, *upkeep], stop)
        for task in (working, *upkeep):
            task.cancel()
        for result in await asyncio.gather(working, *upkeep, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def register(app: App, open_services: Services) -> None:
    """Tell procrastinate what each task's name means."""

    @app.task(name="erase_series", retry=_RETRY)
    async def erase_series(
        account_id: int, series_ids: list[int], from_us: int | None = None, to_us: int | None = None
    ) -> None:
        """A deleted device's readings, or those of a range; safe to repeat."""
        span = [None if at is None else buckets.from_us(at) for at in (from_us, to_us)]
        more = True
        while more:
            async with transaction(open_services.pool) as conn:
                more = await moves.erase_slice(conn, account_id, series_ids, *span)
        _logger.info("erased", account=account_id, series=len(series_ids))


async def _every(seconds: float, work, open_services: Services) -> None:  # type: ignore[no-untyped-def]
    while True:
        try:
            await work(open_services)
        except (PaqettError, Error, OSError) as error:
            _logger.warning("upkeep failed", work=work.__name__, error=str(error))
        await asyncio.sleep(seconds)


async def watch_retention(open_services: Services) -> None:
    """Drop what has expired where the edition has no policies, and look after them where it has."""
    async with transaction(open_services.pool) as conn:
        states = await retention.states(conn)
    for state in states:
        if state.retention_by == "worker" or state.overdue(open_services.clock()):
            async with transaction(open_services.pool) as conn:
                dropped = await retention.apply(conn, state.name)
            _logger.info("retention applied", tier=state.name, chunks=dropped)
        _overdue.labels(state.name).set(state.overdue(open_services.clock()))
        if state.oldest is not None:
            age = open_services.clock() - state.oldest
            _oldest.labels(state.name).set(age.total_seconds())


async def forget_examples(open_services: Services) -> None:
    """Refused payloads are kept for 7 days."""
    before = open_services.clock() - _EXAMPLES_KEPT
    async with transaction(open_services.pool) as conn:
        await conn.execute(query("unscoped_forget_rejections"), {"before": before})


async def move_readings(open_services: Services) -> None:
    """Carry every open move to its end, and begin those whose grace is over."""
    now = open_services.clock()
    async with transaction(open_services.pool) as conn:
        due = await (
            await conn.execute(query("unscoped_due_tier_changes"), {"now": now})
        ).fetchall()
    for row in due:
        async with transaction(open_services.pool) as conn:
            await moves.apply_due(conn, row["id"], open_services.plans, now)
    async with transaction(open_services.pool) as conn:
        open_moves = await (await conn.execute(query("unscoped_open_moves"))).fetchall()
    for row in open_moves:
        await move_account(open_services, row["id"])


async def move_account(open_services: Services, account_id: int) -> None:
    """Slice by slice until nothing is left, then close."""
    closed = False
    while not closed:
        more = True
        while more:
            async with transaction(open_services.pool) as conn:
                more = await moves.move_slice(conn, account_id, open_services.clock())
        async with transaction(open_services.pool) as conn:
            closed = await moves.close_move(conn, account_id)
    _logger.info("moved", account=account_id)
