"""What a file's own fsync leaves out: its name in the folder."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Return once names that were made, changed or removed in it are on disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
