"""Messages on this machine's disk while the database is away or slow: appended, read in order.

They lie in segments (`spool_segment`) in a folder of the spool's own (`spool_folder`).
"""

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from paqett import log
from paqett.errors import ConfigurationError, PaqettError
from paqett.ingest.spool_folder import SpoolFolder
from paqett.ingest.spool_segment import Record, Segment

_logger = log.get("spool")


class Place(NamedTuple):
    """A point between records: a segment's number and a byte offset in its file."""

    segment: int
    position: int


class SpoolFull(PaqettError):
    """The cap is reached, the disk is short or refused: nothing of the append counts."""


class Spool:
    """A folder of segments with one owner.

    `id` names the spool in the database, `place` is how far it has been replayed, and
    `corrupt_records` counts the damaged stretches met since the start.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, min_free_bytes: int, segment_bytes: int = 16 * 2**20
    ) -> None:
        """Open `folder`, made with mode 0700 where it is missing; sizes are in bytes.

        The segments together stay within `max_bytes` and leave `min_free_bytes` of the disk. A new
        one is started behind `segment_bytes`, and at each start: an earlier life's last one may end
        in a torn record. Raises `SpoolInUse`, and `ConfigurationError` for a folder of no use.
        """
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._segment_bytes = segment_bytes
        self._segments: dict[int, Segment] = {}
        self._current: Segment | None = None
        self._writing = threading.Lock()
        self._last_corrupt = Place(-1, -1)
        self.corrupt_records = 0
        self.place = Place(0, 0)
        self._folder = SpoolFolder(folder)
        try:
            self._folder.hold()
            self._segments = self._folder.segments()
            self.id = self._folder.identify(max(self._segments, default=0))
        except OSError as error:
            self.close()
            raise ConfigurationError(f"the spool {folder} cannot be used: {error}") from error

    async def append(self, records: Sequence[Record]) -> tuple[Place, Place]:
        """Write and sync all of `records`, one append at a time; the places before and behind them.

        Raises `SpoolFull`, and then nothing of them is left.
        """
        if not records:
            return self.place, self.place
        try:
            return await asyncio.to_thread(self._append, records)
        finally:
            self._forget()

    def read(self, max_records: int, max_bytes: int) -> tuple[list[Record], Place]:
        """The next records and the place behind them; `self.place` stays.

        `max_bytes` counts frames; one record comes however large it is. No records and a new place:
        what was left is damaged. Damage is logged and counted once; a segment that is missing or
        gives EIO is damaged, any other OSError (too many open files) is raised.
        """
        records: list[Record] = []
        place = self.place
        for segment in list(self._segments.values()):
            if segment.number < place.segment:
                continue
            if records and (len(records) >= max_records or max_bytes <= 0):
                break
            start = place.position if segment.number == place.segment else 0
            limit = max(max_records - len(records), 1)
            more, position = self._take(segment, start, limit, max_bytes, widen=not records)
            records += more
            max_bytes -= position - start
            if position > start:
                place = Place(segment.number, position)
            if position < segment.end:
                break
        return records, place

    def advance(self, place: Place) -> None:
        """Everything before `place` is done: move on, never back, and delete whole segments."""
        self.place = max(self.place, place)
        self._forget()

    def resume(self, place: Place) -> None:
        """Go on from what the database says; ignored where it lies before what is there.

        A number not given out here yet means that the folder was set back, to a backup say: then
        all of it is replayed, and new segments get higher numbers.
        """
        if self._folder.has_given_out(place.segment):
            self.advance(place)
        else:
            _logger.warning("the database is ahead of the spool", segment=place.segment)
            self._folder.skip_to(place.segment + 1)

    @property
    def empty(self) -> bool:
        """Whether nothing is left to read."""
        return self.bytes == 0

    @property
    def bytes(self) -> int:
        """Bytes on disk that have not been replayed, damaged stretches included."""
        begun = self._segments.get(self.place.segment)
        return self._on_disk() - (min(self.place.position, begun.end) if begun else 0)

    def close(self) -> None:
        """Wait for an append under way, then let go of the folder; may be called twice."""
        with self._writing:
            self._seal()
            self._folder.release()

    def _on_disk(self) -> int:
        return sum(segment.end for segment in list(self._segments.values()))

    def _append(self, records: Sequence[Record]) -> tuple[Place, Place]:
        with self._writing:
            try:
                return self._write(records)
            except OSError as error:
                self._abandon()
                raise SpoolFull(f"the spool's disk refused: {error.strerror}") from error

    def _write(self, records: Sequence[Record]) -> tuple[Place, Place]:
        if self._current and self._current.end >= self._segment_bytes:
            self._seal()
        segment = self._current or self._folder.new_segment()
        data = segment.frame(records)
        self._check_room(len(data))
        if self._current is None:
            segment.create()
            self._current = segment
        segment.write(data)
        if segment.end == 0:
            self._folder.sync()
        # The event loop reads beside this thread: each of these is one step for it.
        start, segment.end = segment.end, segment.end + len(data)
        self._segments[segment.number] = segment
        return Place(segment.number, start), Place(segment.number, segment.end)

    def _check_room(self, size: int) -> None:
        if self._on_disk() + size > self._max_bytes:
            raise SpoolFull(f"the spool has reached its cap of {self._max_bytes} bytes")
        disk = os.statvfs(self._folder.path)
        if disk.f_bavail * disk.f_frsize - size < self._min_free_bytes:
            raise SpoolFull(f"the spool's disk has less than {self._min_free_bytes} bytes free")

    def _abandon(self) -> None:
        """Cut off what a failed append left; after a failed fsync a file is not written again."""
        if self._current:
            with suppress(OSError):
                self._current.cut_off()
            self._seal()

    def _seal(self) -> None:
        if self._current:
            self._current.close()
            self._current = None

    def _forget(self) -> None:
        """Delete the segments that are replayed; the one being written to waits for its append."""
        idle = self._writing.acquire(blocking=False)
        for number, segment in list(self._segments.items()):
            current = segment is self._current
            if Place(number, segment.end) > self.place or (current and not idle):
                break
            if current:
                self._seal()
            with suppress(OSError):
                segment.path.unlink()
            del self._segments[number]
        if idle:
            self._writing.release()

    def _take(
        self, segment: Segment, start: int, limit: int, room: int, *, widen: bool
    ) -> tuple[list[Record], int]:
        """Records of one segment within `room` bytes, past damage, and the offset behind them.

        With `widen` the look goes as far as the first record or the segment's end needs.
        """
        rest = segment.end - start
        window = min(max(room, 1), rest)
        while window > 0:
            try:
                data = segment.load(start, window)
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.EIO}:
                    raise
                self._damaged(Place(segment.number, start), str(error.strerror))
                return [], start + rest
            at = segment.first_frame(data)
            records, used = segment.parse(data, at, limit, room)
            if at and (records or window == rest):
                self._damaged(Place(segment.number, start), "checksum")
            if records or window == rest:
                return records, start + (used if records else rest)
            window = min(window * 4, rest) if widen else 0
        return [], start

    def _damaged(self, place: Place, reason: str) -> None:
        # A read starts at the same place until that moves, and counts only what is new.
        if place > self._last_corrupt:
            self._last_corrupt = place
            self.corrupt_records += 1
            at = {"segment": place.segment, "offset": place.position}
            _logger.error("spool damaged", **at, reason=reason)
