"""A spool's folder: one owner, a name of its own, and numbers of segments never given out twice."""

import fcntl
import os
import re
import secrets
from pathlib import Path

from paqett.errors import PaqettError
from paqett.folders import sync_folder
from paqett.ingest.spool_segment import Segment, opened, write_all

_ID = re.compile(r"([0-9a-f]{32}) (\d{1,18})\n")
_RESERVED = 1000


class SpoolInUse(PaqettError):
    """Another process holds the spool's folder."""


class SpoolFolder:
    """The folder at `path`; nothing is looked at before it is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1
        self._id = ""
        self._next = self._reserved = 0

    def hold(self) -> None:
        """Make the folder and lock it, until `release`. Raises `SpoolInUse` and `OSError`."""
        if not self.path.exists():
            self.path.mkdir(mode=0o700, parents=True)
            sync_folder(self.path.parent)
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise SpoolInUse(f"another process holds the spool {self.path}") from error

    def release(self) -> None:
        """Let go of it; may be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def segments(self) -> dict[int, Segment]:
        """Those with something in them, by their numbers, in order; empty files are removed."""
        found = {}
        for path in sorted(self.path.glob("*.spool")):
            segment = Segment.found(path)
            if segment is not None and segment.end:
                found[segment.number] = segment
            elif segment is not None:
                path.unlink()
        return found

    def identify(self, highest: int) -> str:
        """The spool's name; numbers go on above `highest`, and above any of an earlier life."""
        file = self.path / "id"
        above = highest + 1
        if found := _ID.fullmatch(file.read_text(errors="replace") if file.exists() else ""):
            self._id, self._next = found[1], max(int(found[2]), above)
        else:
            # An unknown name has no place in the database, so what is here is replayed whole.
            self._id, self._next = secrets.token_hex(16), above
            self._save(above)
        return self._id

    def has_given_out(self, number: int) -> bool:
        """Whether a segment of this number may have been here."""
        return number < self._next

    def skip_to(self, number: int) -> None:
        """The next segment is to have this number."""
        self._next = number

    def new_segment(self) -> Segment:
        """A segment without a file yet, its number reserved on disk ahead of use.

        An emptied folder does not show the numbers used and a clock can be set back; below an old
        place in the database new records would pass for replayed.
        """
        number = self._next
        if number >= self._reserved:
            self._save(number + _RESERVED)
            self._reserved = number + _RESERVED
        self._next = number + 1
        return Segment.new(self.path, number)

    def sync(self) -> None:
        """Return once the names in it are on disk. Raises `OSError`."""
        sync_folder(self.path)

    def _save(self, number: int) -> None:
        new = self.path / "id.new"
        with opened(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) as fd:
            write_all(fd, f"{self._id} {number}\n".encode())
            os.fsync(fd)
        new.replace(self.path / "id")
        sync_folder(self.path)
