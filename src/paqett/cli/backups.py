"""`paqett admin backup`, `restore` and `reapply-erasures`."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from paqett import backups
from paqett.app import services
from paqett.cli.commands import JSON, Commands, arg, flag
from paqett.cli.running import on_its_own
from paqett.register import load as load_register
from paqett.settings import Settings
from paqett.worker import reapplying
from paqett.worker.reapplying import Reapplied


class Restored(msgspec.Struct, frozen=True):
    """What was restored, and what of it was erased again."""

    file: str
    database: str
    replaced: str | None
    erased_again: Reapplied


def register(actions: Commands) -> None:
    """The three commands."""
    actions.add(
        "backup", on_its_own(_backup), "write the whole database into a file",
        arg("--to", type=Path, help="a folder; default: backup.folder"), JSON,
    )  # fmt: skip
    actions.add(
        "restore", on_its_own(_restore),
        "bring the database back from a backup, without what was erased since",
        arg("file", type=Path),
        flag("--replace", "where the database exists: keep it under another name"), JSON,
    )  # fmt: skip
    actions.add(
        "reapply-erasures", on_its_own(_reapply),
        "after a restore: erase again what was erased since the backup", JSON,
    )  # fmt: skip


async def _backup(settings: Settings, arguments: argparse.Namespace) -> backups.Backup:
    folder = arguments.to or settings.backup_dir
    kept = load_register().period("backups")
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
        return await reapplying.reapply(opened)
