"""Webhooks leave here: the job that tries one delivery once, and plans the next attempt."""

import msgspec
from procrastinate import App

from paqett import channels, jobs, log, notice_events, notices, webhooks
from paqett.app import Services
from paqett.channels import Attempt, Due
from paqett.db import transaction
from paqett.webhooks import Answer, Call

_logger = log.get("webhooks")
_TEST = "channel_test"


def register(app: App, services: Services) -> None:
    """The task behind `channels.send_notice` and `channels.test`."""

    @app.task(name="deliver_webhook", retry=jobs.Backoff())
    async def deliver_webhook(account_id: int, delivery: str) -> None:
        """One attempt. The next one is another job, written with the note of this one."""
        now = services.clock()
        async with transaction(services.pool) as conn:
            due = await channels.due(conn, account_id, delivery, now)
            if due is not None and due.paused and due.event != "test":
                await channels.give_up(conn, account_id, due)
                due = None
        if due is None:
            return
        answer = await _call(services, due)
        attempt = Attempt(now, answer.status, answer.error, answer.ms)
        async with transaction(services.pool) as conn:
            paused = await channels.note(conn, account_id, due, attempt)
            if paused is not None:
                host = webhooks.host_of(paused.url)
                await notices.notify(
                    conn, account_id, "channel_paused", name=paused.name, host=host,
                    failures=channels.MOST_FAILURES, error=answer.error,
                )  # fmt: skip


async def _call(services: Services, due: Due) -> Answer:
    settings = services.settings.webhooks
    answer = await webhooks.call(
        Call(due.url, due.id, due.event, body(due), due.secrets), services.clock(),
        allow_private=settings.allow_private, timeout_s=settings.timeout_s,
    )  # fmt: skip
    _logger.info("called", channel=due.channel_id, status=answer.status, ms=answer.ms)
    return answer


def body(due: Due) -> bytes:
    """What is sent: the same bytes at every attempt."""
    event = _TEST if due.event == "test" else due.event
    told = notice_events.describe(event, due.data or {}, "UTC")
    return msgspec.json.encode(
        {
            "id": due.id,
            "event": due.event,
            "kind": due.kind or "test",
            "title": told.title,
            "text": told.text,
            "data": due.data or {},
            "notice": due.notice_id,
            "created_at": due.created_at,
        }
    )
