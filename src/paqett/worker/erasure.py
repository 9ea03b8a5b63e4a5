"""Erasures: carried out step by step in bounded transactions, and taken up again after a kill.

Each step may be done again. Which one is in hand, and how far the readings are, stands in the table
`erasure`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta

from procrastinate import App

from paqett import jobs, log, mail_transport, moves
from paqett.app import Services
from paqett.billing import sync as billing
from paqett.billing.problems import BillingNotSetUp
from paqett.db import Connection, transaction
from paqett.erasure import closing, steps, sweep, tombstones
from paqett.erasure.receipts import Receipt
from paqett.erasure.steps import Work
from paqett.erasure.sweep import Reach
from paqett.erasure.tombstones import Tombstone
from paqett.exports import records
from paqett.mail_rendering import render
from paqett.mail_transport import Mail, MailRefused
from paqett.mqtt import clearing
from paqett.readings import buckets
from paqett.sqlfiles import query
from paqett.worker.mail import folder, send
from paqett.worker.upkeep import kept

_logger = log.get("erasure")
_HEARD_OF = timedelta(minutes=10)
_WAIT_FOR_JOBS_S = 0.5
_ALL_JOBS_S = 120.0
_AT_STRIPE = "Stripe keeps invoices and payments as long as tax law has them kept."
_NOT_SET_UP = (
    "Stripe was not reached, since billing is no longer set up here: the customer there remains."
)
_Step = Callable[[Services, Work], Awaitable[None]]
_EraseSome = Callable[[Connection, Work], Awaitable[bool]]


def register(app: App, services: Services) -> None:
    """The tasks of deletions, of accounts, devices, metrics and ranges."""

    @app.task(name="erase", retry=jobs.Backoff())
    async def erase_one(erasure: str) -> None:
        """An account or a device; the job names neither."""
        await erase(services, erasure)

    @app.task(name="erase_series", retry=jobs.Backoff())
    async def erase_series(
        account_id: int, series_ids: list[int], from_us: int | None = None, to_us: int | None = None
    ) -> None:
        """A deleted metric's readings, or those of a range; safe to repeat."""
        start, end = (None if at is None else buckets.from_us(at) for at in (from_us, to_us))
        reach: Reach | None = Reach(start)
        while reach is not None:
            async with transaction(services.pool) as conn:
                reach = await sweep.erase_some(conn, account_id, series_ids, reach, end)
        _logger.info("erased", account=account_id, series=len(series_ids))

    @app.task(name="clear_broker", retry=jobs.Backoff())
    async def clear_broker(account_id: int) -> None:
        """What the broker retains of a closing account's devices."""
        async with transaction(services.pool) as conn:
            cleared = await steps.devices_of(conn, account_id)
        if services.settings.mqtt.password:
            await clearing.clear_retained(services.settings.mqtt, cleared)

    @app.task(name="follow_deletion", retry=jobs.Backoff())
    async def follow_deletion(account_id: int) -> None:
        """The subscription ends with the account's closing, and goes on with its undoing."""
        if services.stripe is None:
            raise BillingNotSetUp
        async with transaction(services.pool) as conn:
            await billing.follow_deletion(conn, services.stripe, account_id)

    @app.task(name="mail_receipt", retry=jobs.Backoff())
    async def mail_receipt(erasure: str) -> None:
        """The last mail."""
        await _mail_receipt(services, erasure)


async def erase(services: Services, erasure_id: str) -> None:
    """Carry out one erasure, from the step it is at. Nothing happens where it is done or undone."""
    async with transaction(services.pool) as conn:
        work = await steps.find(conn, erasure_id)
    if work is None or work.account_id is None:
        return
    async with transaction(services.pool) as conn:
        if not await steps.begin(conn, work, services.clock()):
            return
    doing = _ACCOUNT if work.device_id is None else _DEVICE
    names = list(doing)
    for name in names[names.index(work.step) if work.step in doing else 0 :]:
        async with transaction(services.pool) as conn:
            await steps.note_step(conn, work, name)
        await doing[name](services, work)
    kind = "account" if work.device_id is None else "device"
    _logger.info("erased", kind=kind, erasure=erasure_id)


async def _mark(services: Services, work: Work) -> None:
    stone = Tombstone(services.clock(), work.account_id or 0, work.made_at, work.device_id)
    await asyncio.to_thread(tombstones.append, services.settings.backup_dir, stone)


async def _leave_stripe(services: Services, work: Work) -> None:
    if work.customer is None:
        return
    kept = _NOT_SET_UP
    if services.stripe is not None:
        await services.stripe.delete_customer(work.customer)
        kept = _AT_STRIPE
    async with transaction(services.pool) as conn:
        await steps.note_step(conn, work, "stripe", kept)


async def _leave_broker(services: Services, work: Work) -> None:
    mqtt = services.settings.mqtt
    if not mqtt.password or work.asked_by == "restore":
        return
    cleared = [work.device_id] if work.device_id else []
    if not cleared:
        async with transaction(services.pool) as conn:
            cleared = await steps.devices_of(conn, work.account_id or 0)
    await clearing.clear_retained(mqtt, cleared)
    await clearing.forget_sessions(mqtt, cleared)


async def _sweep(services: Services, work: Work) -> None:
    async with transaction(services.pool) as conn:
        series = await steps.series_of(conn, work)
    await _sweep_series(services, work, series, Reach(work.reached))


async def _sweep_series(
    services: Services, work: Work, series: list[int], reach: Reach | None
) -> None:
    while reach is not None and series:
        async with transaction(services.pool) as conn:
            reach = await sweep.erase_some(conn, work.account_id or 0, series, reach)
            if reach is not None:
                await steps.note_erased(conn, work, reach.rows, reach.time)


async def _prove(services: Services, work: Work) -> None:
    """Look at every chunk, not by the series we know, until there is no reading in any."""
    async with transaction(services.pool) as conn:
        tiers = list(await moves.tier_retentions(conn))
        stretches = await steps.stretches(conn, tiers)
    for stretch in stretches:
        async with transaction(services.pool) as conn:
            left = await steps.series_left(conn, work.account_id or 0, stretch)
        await _sweep_series(services, work, left, Reach())


async def _drop_jobs(services: Services, work: Work) -> None:
    """Those that are in hand end first; then nothing of the account is done any more."""
    async with asyncio.timeout(_ALL_JOBS_S):
        while True:
            async with transaction(services.pool) as conn:
                if await steps.erase_jobs(conn, work):
                    return
            await asyncio.sleep(_WAIT_FOR_JOBS_S)


async def _drop_files(services: Services, work: Work) -> None:
    gone = {
        "files: exports": await asyncio.to_thread(_drop_exports, services, work.account_id or 0),
        "files: mails": await asyncio.to_thread(
            mail_transport.forget_of,
            folder(services.settings),
            [one for one in (work.email, work.pending_email) if one],
        ),
    }
    async with transaction(services.pool) as conn:
        counted = {name: files for name, files in gone.items() if files}
        await steps.note_erased(conn, work, counted)


def _drop_exports(services: Services, account_id: int) -> int:
    files = records.files_of(services.settings.export_dir, account_id)
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


async def _drop_rows(services: Services, work: Work) -> None:
    await _drop_all(services, work, steps.erase_rows)


async def _drop_all(services: Services, work: Work, erase: _EraseSome) -> None:
    """Some in each transaction, until none is left."""
    more = True
    while more:
        async with transaction(services.pool) as conn:
            more = await erase(conn, work)


async def _finish(services: Services, work: Work) -> None:
    """A last look at everything; what is there again goes once more."""
    while True:
        # whoever was still signed in may have had an archive made after the files were dropped
        await _drop_files(services, work)
        try:
            async with transaction(services.pool) as conn:
                await steps.finish(conn, work, services.clock())
            break
        except steps.NotEmpty as found:
            _logger.info("once more", why=str(found))
            await _drop_jobs(services, work)
            await _drop_rows(services, work)
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_analyze_account_tables"))


async def _drop_refusals(services: Services, work: Work) -> None:
    await _drop_all(services, work, steps.erase_refusals)


async def _finish_device(services: Services, work: Work) -> None:
    async with transaction(services.pool) as conn:
        await steps.finish_device(conn, work)


_ACCOUNT: dict[str, _Step] = {
    "tombstone": _mark,
    "stripe": _leave_stripe,
    "broker": _leave_broker,
    "readings": _sweep,
    "proof": _prove,
    "jobs": _drop_jobs,
    "files": _drop_files,
    "rows": _drop_rows,
    "account": _finish,
}
_DEVICE: dict[str, _Step] = {
    "tombstone": _mark,
    "broker": _leave_broker,
    "readings": _sweep,
    "rows": _drop_refusals,
    "device": _finish_device,
}


async def _mail_receipt(services: Services, erasure_id: str) -> None:
    async with transaction(services.pool) as conn:
        found = await steps.receipt_to_mail(conn, erasure_id)
    if found is None:
        return
    receipt, to, token = found
    try:
        await send(services, _letter(receipt, to, token, services.settings.public_url))
    except MailRefused:
        _logger.warning("a receipt was refused by the mail server")
    async with transaction(services.pool) as conn:
        await conn.execute(query("unscoped_note_receipt_mailed"), {"erasure": erasure_id})


def _letter(receipt: Receipt, to: str, token: str, public_url: str) -> Mail:
    facts = [(name, f"{rows:,}") for name, rows in receipt.erased.items()]
    rendered = render(
        "account_erased", first_name=None, public_url=public_url, unsubscribe=None, facts=facts,
        total=f"{receipt.total:,}", kept=receipt.kept, number=receipt.id,
        when=f"{receipt.finished_at:%-d %B %Y, %H:%M} UTC",
        link=f"{public_url}/deletion/receipt?token={token}",
    )  # fmt: skip
    message_id = f"account_erased.{secrets.token_hex(8)}"
    return Mail(to, "account_erased", rendered.subject, rendered.text, rendered.html, message_id)


async def erase_due(services: Services) -> None:
    """Write the jobs of deletions that nobody has undone in time."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        due = await conn.execute(query("unscoped_claim_due_erasures"), {"now": now})
        for row in await due.fetchall():
            await closing.later(conn, row["id"])


async def forget(services: Services) -> None:
    """Addresses of receipts that could not be mailed, and devices' names in the directory's log."""
    now = services.clock()
    async with transaction(services.pool) as conn:
        values = {"before": now - kept("receipt_addresses")}
        await conn.execute(query("unscoped_forget_receipt_addresses"), values)
    async with transaction(services.pool) as conn:
        values = {"before": now - _HEARD_OF}
        found = await conn.execute(query("unscoped_old_directory_changes"), values)
        row = await found.fetchone()
        if row is not None and row["found"]:
            await conn.execute(query("lock_directory"))
            await conn.execute(query("unscoped_clear_directory"))
