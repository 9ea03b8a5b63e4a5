"""Export All My Data in the worker: the job that writes an archive, and the files' upkeep."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

from procrastinate import App

from paqett import db, jobs, log
from paqett import register as personal_data
from paqett.app import Services
from paqett.db import Connection, transaction
from paqett.errors import NotFound
from paqett.exports import contents, readings, records, telling
from paqett.exports.archive import Archive
from paqett.exports.readings import Piece
from paqett.exports.records import Export
from paqett.exports.telling import Subject
from paqett.sqlfiles import query

_logger = log.get("exports")
_NOTED_EVERY_S = 1.0
_Result = TypeVar("_Result")


def register(app: App, services: Services) -> None:
    """The task behind `records.request`."""

    @app.task(name="write_export", retry=jobs.Backoff())
    async def write_export(account_id: int, export_id: int) -> None:
        """Write the archive from its beginning, whatever an earlier attempt left."""
        async with transaction(services.pool) as conn:
            export = await records.begin(conn, account_id, export_id, services.clock())
        if export is None:
            return
        try:
            await _Writing(services, account_id, export).run()
        except NotFound:
            _logger.info("the account is gone", export=export_id)


class _Writing:
    """One attempt at an archive. Raises `NotFound` where the account is erased meanwhile."""

    def __init__(self, services: Services, account_id: int, export: Export) -> None:
        self._services, self._account, self._export = services, account_id, export
        self._register = personal_data.load()
        self._noted_at, self._done = 0.0, 0.0

    async def run(self) -> None:
        """Written beside, and put in its place in the transaction that says so."""
        folder = await asyncio.to_thread(open_folder, self._services.settings.export_dir)
        records.remove_drafts(folder, self._account, self._export.id)
        stem = records.file_stem(self._account, self._export.id)
        # of its own, since a worker that was only cut off may still be at it
        draft = folder / f"{stem}.{secrets.token_hex(4)}.part"
        free = self._services.settings.exports.min_free_bytes
        archive = Archive(draft, self._export.format, self._services.clock(), free)
        try:
            await self._fill(archive)
            await self._put_in_place(archive, draft, folder)
        finally:
            archive.abandon()

    async def _put_in_place(self, archive: Archive, draft: Path, folder: Path) -> None:
        written = await _in_thread(archive.finish)
        kept = self._register.period("exports")
        async with transaction(self._services.pool) as conn:
            now = self._services.clock()
            if not await records.finish(conn, self._account, self._export.id, written, now, kept):
                raise NotFound("The account is gone.")
            path = records.file_of(folder, self._account, self._export.id)
            await asyncio.to_thread(draft.replace, path)
        _logger.info("exported", account=self._account, rows=written.rows, bytes=written.bytes)

    async def _fill(self, archive: Archive) -> None:
        database = self._services.settings.database
        async with (
            await db.connect(database, "export", autocommit=True) as holding,
            await db.connect(database, "export", autocommit=True) as reading,
            db.snapshot(holding) as held,
        ):

            def begin() -> AbstractAsyncContextManager[Connection]:
                return db.as_of(reading, held)

            found = await readings.look(begin, self._account, archive.form, archive.moment)
            for table in contents.tables(self._register):
                archive.begin(contents.describe(self._register, table))
                async for rows in contents.rows(begin, self._account, table):
                    await _in_thread(partial(archive.write_rows, rows))
                    await self._note(archive, 0.0)
                archive.end()
            for name, pieces in (
                (contents.NUMBERS, found.numbers()), (contents.TEXTS, found.texts()),
            ):  # fmt: skip
                archive.begin(contents.describe(self._register, self._register.tables[name]))
                await self._write(archive, pieces)
                archive.end()
                self._done += 0.5
        subject = Subject(self._account, found.email, self._services.settings.public_url)
        archive.add("manifest.json", telling.manifest(archive, subject))
        archive.add("README.txt", telling.readme(archive, subject, self._register))

    async def _write(self, archive: Archive, pieces: AsyncIterator[Piece]) -> None:
        """One piece is read, the one before it made into lines, the one before that compressed."""
        reading = asyncio.ensure_future(anext(pieces, None))
        writing = asyncio.ensure_future(asyncio.sleep(0))
        try:
            while (piece := await reading) is not None:
                reading = asyncio.ensure_future(anext(pieces, None))
                lines = await _in_thread(piece.make)
                await writing
                await self._note(archive, 0.5 * piece.share)
                write = partial(archive.write, lines, piece.rows)
                writing = asyncio.ensure_future(_in_thread(write))
            await writing
        finally:
            for one in (reading, writing):
                one.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _note(self, archive: Archive, share: float) -> None:
        if time.monotonic() - self._noted_at < _NOTED_EVERY_S:
            return
        self._noted_at = time.monotonic()
        async with transaction(self._services.pool) as conn:
            if not await records.note_progress(
                conn, self._account, self._export.id, self._done + share, archive.rows
            ):
                raise NotFound("The account is gone.")


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """What `work` gives, done in a thread; who is cancelled waits for its end all the same."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def open_folder(folder: Path) -> Path:
    """The export folder, its owner's alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


async def look_after(services: Services) -> None:
    """Tell what has failed for good; end archives whose time is over, and files nobody owns."""
    now = services.clock()
    kept = personal_data.load().period("export_records")
    async with transaction(services.pool) as conn:
        failed = await records.fail_abandoned(conn, now)
        await conn.execute(query("unscoped_expire_exports"), {"now": now})
        await conn.execute(query("unscoped_forget_exports"), {"before": now - kept})
    folder = services.settings.export_dir
    there = await asyncio.to_thread(lambda: sorted(folder.glob("*")))
    # looked at after the files: what was begun meanwhile is not taken for nobody's
    async with transaction(services.pool) as conn:
        rows = await (await conn.execute(query("unscoped_archives"))).fetchall()
    known = [(row["account_id"], row["id"], row["status"]) for row in rows]
    removed = records.ownerless(there, known)
    for path in removed:
        path.unlink(missing_ok=True)
    if failed or removed:
        _logger.info("looked after", failed=failed, removed=len(removed))
