"""`paqett admin backup`, `restore` and `reapply-erasures`."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from paqett import backups, register
from paqett.app import services
from paqett.settings import Settings
from paqett.worker import erasure
from paqett.worker.erasure import Reapplied


class Restored(msgspec.Struct, frozen=True):
    """What was restored, and what of it was erased again."""

    file: str
    database: str
    replaced: str | None
    erased_again: Reapplied


def flags(commands: Any) -> list[argparse.ArgumentParser]:
    """The three commands."""
    backup = commands.add_parser("backup", help="write the whole database into a file")
    backup.add_argument("--to", type=Path, help="a folder; default: backup.folder")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser(
        "restore", help="bring the database back from a backup, without what was erased since"
    )
    restore.add_argument("file", type=Path)
    restore.add_argument(
        "--replace", action="store_true",
        help="where the database exists: keep it under another name",
    )  # fmt: skip
    restore.set_defaults(run=_restore)
    reapply = commands.add_parser(
        "reapply-erasures", help="after a restore: erase again what was erased since the backup"
    )
    reapply.set_defaults(run=_reapply)
    return [backup, restore, reapply]


async def _backup(settings: Settings, arguments: argparse.Namespace) -> backups.Backup:
    folder = arguments.to or settings.backup_dir
    kept = register.load().period("backups")
    return backups.make(settings.database, folder, datetime.now(UTC), kept)


async def _restore(settings: Settings, arguments: argparse.Namespace) -> Restored:
    now = datetime.now(UTC)
    async with backups.restoring(
        settings.database, arguments.file, now, replace=arguments.replace
    ) as done:
        again = await _reapply(settings, arguments)
    return Restored(done.file, done.database, done.replaced, again)


async def _reapply(settings: Settings, _: argparse.Namespace) -> Reapplied:
    async with services(settings, "admin") as opened:
        return await erasure.reapply(opened)
