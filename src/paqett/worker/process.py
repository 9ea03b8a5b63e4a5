"""`paqett worker`: procrastinate's worker with our tasks, and a round of upkeep."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from prometheus_client import Counter, Gauge
from psycopg import Error

from paqett import grafana, jobs, log, mail_transport, moves, retention
from paqett.app import Services, services, until_stopped, wait_for_database
from paqett.db import transaction
from paqett.errors import PaqettError
from paqett.settings import Settings
from paqett.worker import (
    alerts,
    billing,
    erasure,
    exports,
    figures,
    mail,
    moving,
    policy,
    privacy,
    queue,
    upkeep,
    webhooks,
)

_logger = log.get("worker")
_oldest = Gauge("paqett_tier_oldest_reading_age_seconds", "Age of the oldest reading.", ["tier"])
_overdue = Gauge(
    "paqett_tier_overdue", "1 where readings outlive retention + chunk + schedule.", ["tier"]
)
_ended = Counter(
    "paqett_sql_logins_ended", "What accounts' SQL logins kept open too long.", ["action"]
)
_failures = Counter(
    "paqett_worker_round_failures_total", "Rounds of upkeep that failed; the next tries again.",
    ["work"],
)  # fmt: skip
_in_a_row = Gauge(
    "paqett_worker_round_failures_in_a_row", "How often it failed since it last went well.",
    ["work"],
)  # fmt: skip
_QUEUE_EVERY_S = 10.0
_BILLING_EVERY_S = 60.0
_WARN_EVERY_S = 30.0
_DUE_EVERY_S = 1.0
_ABSENCE_EVERY_S = 5.0
_SUM_UP_EVERY_S = 60.0
_ERASE_EVERY_S = 10.0
_Round = Callable[[Services], Awaitable[None]]
_WATCH_EVERY_S = 2.0
_WEBHOOKS_AT_A_TIME = 16
_SWITCH_S = 0.0005  # a thread that writes an archive lets the others go on as often
_LOOK_FOR_JOBS_EVERY_S = 1.0
_EXPORT_STOPS_S = 1.0
_EXPORTS_EVERY_S = 30.0
_CATCH_UP_S = 1800.0  # what a worker that was away has to make good is done by then


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop`; a job in hand is finished first.

    Raises `ConfigurationError` for mail settings that would send in clear.
    """
    mail_transport.check(settings.mail)
    sys.setswitchinterval(_SWITCH_S)
    await wait_for_database(settings, stop)
    if stop.is_set():
        return
    app = jobs.app(settings.database)
    async with services(settings, "worker") as open_services, app.open_async():
        register(app, open_services)
        queues = (
            ("default", settings.worker.concurrency, None),
            (jobs.WEBHOOKS, _WEBHOOKS_AT_A_TIME, None),
            (jobs.EXPORTS, 1, _EXPORT_STOPS_S),
        )
        working = [
            asyncio.create_task(
                work(app, open_services, queues=[name], concurrency=number, stops_s=stops_s)
            )
            for name, number, stops_s in queues
        ]
        rounds = [
            asyncio.create_task(_every(seconds, task, open_services))
            for seconds, task in [*_rounds(app, settings), (_DUE_EVERY_S, alerts.tell)]
        ]
        checking = _every(upkeep.EVERY_S, privacy.order_check, open_services, _CATCH_UP_S)
        rounds.append(asyncio.create_task(checking))
        await until_stopped([*working, *rounds], stop)
        for task in (*working, *rounds):
            task.cancel()
        for result in await asyncio.gather(*working, *rounds, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def work(
    app: App, open_services: Services, *, wait: bool = True, queues: list[str] | None = None,
    concurrency: int = 4, stops_s: float | None = None,
) -> None:  # fmt: skip
    """Work jobs until cancelled, or until there is none where `wait` is false.

    `concurrency` of them at a time, of some queues or of all. Jobs in hand are finished, or, where
    `stops_s` is given, broken off after so many seconds and begun anew by the next worker.
    """
    named: dict[str, Any] = {} if queues is None else {"queues": queues}
    if stops_s is not None:
        named["shutdown_graceful_timeout"] = stops_s
    await app.run_worker_async(
        **named,
        concurrency=concurrency,
        install_signal_handlers=False,
        delete_jobs="successful",
        # any SQL login may send NOTIFY: procrastinate's listener would end at a payload it cannot
        # read, and cancel a job that is named
        listen_notify=False,
        fetch_job_polling_interval=_LOOK_FOR_JOBS_EVERY_S,
        wait=wait,
        task_middleware=[queue.noting_errors(open_services)],
    )


def _rounds(app: App, settings: Settings) -> list[tuple[float, _Round]]:
    """Upkeep, and how often (s) it goes round."""

    async def take_up_jobs(open_services: Services) -> None:
        await queue.take_up(app, open_services)

    return [
        (settings.worker.retention_every_s, watch_retention),
        (moving.EVERY_S, moving.move_readings),
        (_QUEUE_EVERY_S, moving.watch_moves),
        (upkeep.EVERY_S, moving.remind_of_grace),
        (_ABSENCE_EVERY_S, alerts.look_after_absence),
        (_SUM_UP_EVERY_S, alerts.sum_up_mails),
        (upkeep.EVERY_S, alerts.forget_old),
        (_WATCH_EVERY_S, watch_sql_logins),
        (_QUEUE_EVERY_S, take_up_jobs),
        (_QUEUE_EVERY_S, queue.count),
        (_QUEUE_EVERY_S, figures.look_at_schema),
        (figures.EVERY_S, figures.look),
        (figures.TABLES_EVERY_S, figures.look_at_tables),
        (_QUEUE_EVERY_S, mail.report_failures),
        (_EXPORTS_EVERY_S, exports.look_after),
        (_BILLING_EVERY_S, billing.reconcile),
        (_WARN_EVERY_S, billing.warn_of_quotas),
        (upkeep.EVERY_S, billing.forget_events),
        (upkeep.EVERY_S, upkeep.forget_examples),
        (upkeep.EVERY_S, upkeep.forget_tokens),
        (upkeep.EVERY_S, upkeep.forget_attempts),
        (upkeep.EVERY_S, upkeep.end_sessions),
        (upkeep.EVERY_S, upkeep.forget_streams),
        (policy.EVERY_S, policy.tell),
        (upkeep.EVERY_S, mail.forget_mails),
        (upkeep.EVERY_S, upkeep.forget_notices),
        (upkeep.EVERY_S, upkeep.forget_sessions),
        (upkeep.EVERY_S, upkeep.forget_connections),
        (upkeep.EVERY_S, upkeep.forget_jobs),
        (upkeep.USAGE_EVERY_S, upkeep.forget_usage),
        (upkeep.EVERY_S, upkeep.erase_unconfirmed),
        (upkeep.EVERY_S, erasure.forget),
        (_ERASE_EVERY_S, erasure.erase_due),
    ]


def register(app: App, open_services: Services) -> None:
    """Tell procrastinate what each task's name means."""
    mail.register(app, open_services)
    moving.register(app)
    billing.register(app, open_services)
    webhooks.register(app, open_services)
    exports.register(app, open_services)
    erasure.register(app, open_services)
    privacy.register(app, open_services)


async def _every(
    seconds: float, task: _Round, open_services: Services, first_after_s: float = 0
) -> None:
    work = f"{task.__module__.rpartition('.')[2]}.{task.__name__}"
    await asyncio.sleep(first_after_s)
    while True:
        try:
            await task(open_services)
        except (PaqettError, ConnectorException, Error, OSError) as error:
            _failures.labels(work).inc()
            _in_a_row.labels(work).inc()
            _logger.warning("upkeep failed", work=work, error=str(error))
        else:
            _in_a_row.labels(work).set(0)
        await asyncio.sleep(seconds)


async def watch_retention(open_services: Services) -> None:
    """Drop what has expired where the edition has no policies, and look after them where it has.

    Each tier by itself: what is wrong with one keeps no other waiting, and stays overdue. Raises
    the last that was.
    """
    failed = None
    for state in await _tell_of_retention(open_services):
        if state.by_worker or state.overdue(open_services.clock()):
            try:
                await _apply_retention(open_services, state)
            except (PaqettError, Error) as error:
                failed = error
    await _tell_of_retention(open_services)
    if failed is not None:
        raise failed


async def _apply_retention(open_services: Services, state: retention.TierState) -> None:
    async with transaction(open_services.pool) as conn:
        await moves.settle_retention(conn, state)
        dropped = await retention.apply(conn, state.name)
    _logger.info("retention applied", tier=state.name, chunks=dropped)


async def _tell_of_retention(open_services: Services) -> list[retention.TierState]:
    """Each tier as it is now, at `/metrics` too."""
    async with transaction(open_services.pool) as conn:
        states = await retention.states(conn)
    now = open_services.clock()
    for state in states:
        _overdue.labels(state.name).set(state.overdue(now))
        age = (now - state.oldest).total_seconds() if state.oldest else 0
        _oldest.labels(state.name).set(age)
    return states


async def watch_sql_logins(open_services: Services) -> None:
    """A login may set its own timeouts otherwise; this is what holds."""
    limit_s = open_services.settings.grafana.query_limit_s
    async with transaction(open_services.pool) as conn:
        ended = await grafana.watch(conn, limit_s)
    for one in ended:
        _ended.labels(one.action).inc()
        _logger.warning(
            "sql login", action=one.action, login=one.login, seconds=round(one.seconds, 1)
        )
