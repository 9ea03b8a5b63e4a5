"""What has been erased, in a file beside the backups: whoever restores one erases it again.

One line of JSON for each erasure, synced before anything of it is erased. A line names no person:
an account by its number and the moment it was made, which no later account shares, a device by its
random id. Backups are older than the file, so the file is never restored from one.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from paqett.errors import ConfigurationError
from paqett.folders import mode_of_files, sync_folder

_FILE = "erasures.ndjson"


class Tombstone(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account, or one device of it."""

    at: datetime
    account: int
    made_at: datetime | None = None
    device: str | None = None


def append(folder: Path, stone: Tombstone) -> None:
    """Return once the line is on disk. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    handle = os.open(folder / _FILE, flags, 0o600)
    try:
        line = msgspec.json.encode(stone) + b"\n"
        end = os.lseek(handle, 0, os.SEEK_END)
        if not end:  # just made; whoever restores a backup may be another user
            os.fchmod(handle, mode_of_files(folder))
        if (
            end and os.pread(handle, 1, end - 1) != b"\n"
        ):  # somebody was killed in the middle of one
            line = b"\n" + line
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(folder)


def read(folder: Path) -> Iterator[Tombstone]:
    """Every erasure, oldest first; the torn end of a line that was never synced is left out.

    Raises `ConfigurationError` for a line that is none of ours.
    """
    file = folder / _FILE
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield msgspec.json.decode(line, type=Tombstone)
            except msgspec.ValidationError as error:
                raise ConfigurationError(f"{file}, line {number}: {error}") from None
            except msgspec.DecodeError:
                continue
