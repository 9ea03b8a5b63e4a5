"""Mail leaves here: the job that sends one, the report to the operator, the folder's upkeep."""

import asyncio
import secrets
from collections import Counter
from datetime import timedelta
from pathlib import Path

from procrastinate import App

from paqett import jobs, letters, log, mail_transport
from paqett.app import Services
from paqett.db import transaction
from paqett.mail_rendering import render
from paqett.mail_transport import Mail
from paqett.mails import NOBODY, Template
from paqett.settings import Settings
from paqett.sqlfiles import query
from paqett.worker.upkeep import kept

_logger = log.get("mail")
_REPORT_EVERY = timedelta(hours=1)


def folder(settings: Settings) -> Path:
    """Where mails are written while no server is set."""
    return settings.data_dir / "mail"


def register(app: App, services: Services) -> None:
    """The task behind `mails.defer`."""
    terms = letters.terms(services.settings)

    @app.task(name="send_mail", retry=jobs.Backoff())
    async def send_mail(template: Template, account_id: int, ids: dict[str, int]) -> None:
        """At least once: killed after sending and before the end, it sends another."""
        if account_id == NOBODY:
            return
        async with transaction(services.pool) as conn:
            mail = await letters.write(conn, terms, template, account_id, ids, services.clock())
        if mail is None:
            return
        await send(services, mail)
        async with transaction(services.pool) as conn:
            await letters.note_sent(conn, template, account_id, ids, services.clock())


async def send(services: Services, mail: Mail) -> None:
    settings = services.settings
    await mail_transport.deliver(mail, settings.mail, folder(settings), services.clock())
    _logger.info("sent", template=mail.template)


async def report_failures(services: Services) -> None:
    """Mail failed jobs to the operator, once an hour at most; counts and names, nobody's data."""
    to = services.settings.paqett.operator_email
    if not to:
        return
    now = services.clock()
    async with transaction(services.pool) as conn:
        claim = await conn.execute(
            query("unscoped_claim_operator_report"), {"before": now - _REPORT_EVERY}
        )
        row = await claim.fetchone()
        failed = await jobs.failed_since(conn, row["covered_until"]) if row else []
        if not failed:
            return
        await send(services, _report(to, services.settings.public_url, failed))
        values = {"now": now, "until": failed[-1].at}
        await conn.execute(query("unscoped_note_operator_report"), values)


def _report(to: str, public_url: str, failed: list[jobs.Failed]) -> Mail:
    counted = Counter((job.task, job.error or "unknown task") for job in failed)
    facts = [(task, f"{count} times {error}") for (task, error), count in counted.most_common(20)]
    rendered = render(
        "operator_report", first_name=None, public_url=public_url, unsubscribe=None,
        total=len(failed), facts=facts,
    )  # fmt: skip
    message_id = f"operator_report.{secrets.token_hex(8)}"
    return Mail(to, "operator_report", rendered.subject, rendered.text, rendered.html, message_id)


async def forget_mails(services: Services) -> None:
    """Mails in the folder, which may name readings of any tier."""
    async with transaction(services.pool) as conn:
        tiers = await (await conn.execute(query("unscoped_tiers"))).fetchall()
    longest = min(kept("mail_files"), *(tier["retention"] for tier in tiers))
    before = services.clock() - longest
    await asyncio.to_thread(mail_transport.forget_old, folder(services.settings), before)
