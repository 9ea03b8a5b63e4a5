"""The privacy check: put together from its parts, every week, and whenever somebody asks.

Nothing is locked for long: each chunk is looked into in a transaction of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from procrastinate import App

from paqett import jobs, log, moves
from paqett import register as personal_data
from paqett.app import Services
from paqett.audit import files, orphans, periods, report
from paqett.audit.report import Finding, Report
from paqett.db import Connection, transaction
from paqett.erasure import steps
from paqett.errors import NotRetried
from paqett.sqlfiles import query
from paqett.worker.mail import folder as mail_folder
from paqett.worker.upkeep import EVERY_S, USAGE_EVERY_S, kept

_logger = log.get("privacy")
_EVERY = timedelta(days=7)
_TIMEOUT_S = 300.0
_ENDING = timedelta(minutes=10)
_LOGS_SLACK = timedelta(days=2)  # a day's file is put away on the next day
_USAGE = timedelta(seconds=USAGE_EVERY_S)
_ROUNDS = {"": timedelta(seconds=EVERY_S), "usage": _USAGE, "privacy_checks": _USAGE}


class PromiseBroken(NotRetried):
    """The check found something; the failed job is how an operator hears of it."""


def register(app: App, services: Services) -> None:
    """The task behind the weekly check."""

    @app.task(name="check_privacy", retry=jobs.Backoff())
    async def check_privacy() -> None:
        """Keep the report; raises `PromiseBroken` where something failed."""
        found = await check(services)
        async with transaction(services.pool) as conn:
            await report.keep(conn, found)
        _logger.info("checked", looked_at=found.looked_at, failed=found.failed)
        if not found.passed:
            raise PromiseBroken(report.summary(found))


async def order_check(services: Services) -> None:
    """A job for the next check, where the last one is a week old."""
    async with transaction(services.pool) as conn:
        await conn.execute(query("lock_privacy_check"))
        values = {"before": services.clock() - _EVERY}
        row = await (await conn.execute(query("unscoped_privacy_check_due"), values)).fetchone()
        if row and row["due"]:
            await jobs.defer(conn, "check_privacy")


async def check(services: Services) -> Report:
    """Look at everything there is. Raises `Unavailable` or `psycopg.Error` where that is no use."""
    now = services.clock()
    found = [
        *await _database(services, now),
        *await _readings(services),
        *await _folders(services, now),
        *await _erasures(services, now),
    ]
    return report.of(found, now)


@asynccontextmanager
async def _looking(services: Services) -> AsyncIterator[Connection]:
    async with transaction(services.pool, timeout_s=_TIMEOUT_S) as conn:
        yield conn


async def _database(services: Services, now: datetime) -> list[Finding]:
    register_ = personal_data.load()
    async with _looking(services) as conn:
        found = periods.of_register(register_, await personal_data.catalog(conn, register_))
    found += await asyncio.to_thread(files.of_folder, register_, services.settings.data_dir)
    every = timedelta(seconds=services.settings.worker.retention_every_s)
    async with _looking(services) as conn:
        found += await periods.of_tiers(conn, now, every)
    async with _looking(services) as conn:
        found += await periods.of_tables(conn, register_, now, _ROUNDS)
    async with _looking(services) as conn:
        return found + await orphans.of_rows(conn, now)


async def _readings(services: Services) -> list[Finding]:
    async with _looking(services) as conn:
        tiers = list(await moves.tier_retentions(conn))
        stretches = await steps.stretches(conn, tiers)
    looked = []
    for stretch in stretches:
        async with _looking(services) as conn:
            looked.append((stretch, await orphans.unknown_series(conn, stretch)))
    return orphans.of_readings(looked)


async def _folders(services: Services, now: datetime) -> list[Finding]:
    exports = services.settings.export_dir
    # the files first: what was begun meanwhile is not taken for nobody's
    paths = await asyncio.to_thread(_in, exports, "*")
    async with _looking(services) as conn:
        rows = await (await conn.execute(query("unscoped_archives"))).fetchall()
        values = {"after": now - _ENDING}
        rows += await (await conn.execute(query("unscoped_archives_ending"), values)).fetchall()
        going = await (await conn.execute(query("unscoped_accounts_erasing"))).fetchall()
        tiers = await moves.tier_retentions(conn)
    known = [(row["account_id"], row["id"], row["status"]) for row in rows]
    erasing = [row["id"] for row in going]
    mails = await asyncio.to_thread(_in, mail_folder(services.settings), "*")
    logs = await asyncio.to_thread(_in, services.settings.data_dir / "log", "*-????-??-??.log")
    mails_kept = min(kept("mail_files"), *tiers.values())
    return [
        files.of_exports(exports, paths, known, erasing, now),
        files.of_age("periods", "mails in the folder", mails, mails_kept, now),
        files.of_age("periods", "log files of past days", logs, kept("logs"), now, _LOGS_SLACK),
    ]


def _in(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


async def _erasures(services: Services, now: datetime) -> list[Finding]:
    async with _looking(services) as conn:
        found = await orphans.deletions(conn, now)
    folder = services.settings.backup_dir
    stones = await asyncio.to_thread(files.of_tombstones, folder, found.done)
    return [orphans.of_deletions(found), stones]
