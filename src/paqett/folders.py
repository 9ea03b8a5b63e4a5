"""Folders: names that are on disk, and who besides their owner may see what is in them."""

import os
import stat
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Return once names that were made, changed or removed in it are on disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_folder(folder: Path) -> Path:
    """The folder, made where it is not there: its owner's alone.

    Whoever made it beforehand with its set-group-ID bit shares it with its group, which then keeps
    what the folder lets it do; others never get in. Raises `OSError`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    wanted = mode & ~0o007 if mode & stat.S_ISGID else 0o700
    if mode != wanted:
        folder.chmod(wanted)
    return folder


def mode_of_files(folder: Path) -> int:
    """0600; where the folder is shared, its group reads what it may enter, writes what it may.

    Raises `OSError`.
    """
    mode = folder.stat().st_mode
    if not mode & stat.S_ISGID:
        return 0o600
    return 0o600 | (0o040 if mode & stat.S_IXGRP else 0) | (0o020 if mode & stat.S_IWGRP else 0)
