"""Messages on this machine's disk while the database is away or slow: framed, checked, in order.

A frame: magic (4 bytes), length of the body (u32), CRC-32 of length and body (u32); the body: time
of receipt in µs (i64), length of the topic (u16), topic, payload. All little-endian. Magic and the
CRC's start are random for each segment and stand in its file's name, so that no payload can pose
as a frame where a damaged file is searched for the next one.
"""

import asyncio
import errno
import fcntl
import os
import re
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from paqett import log
from paqett.errors import ConfigurationError, PaqettError
from paqett.folders import sync_folder

_logger = log.get("spool")
_HEAD = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<qH")
_SALT = struct.Struct("<4sI")
_NAME = re.compile(r"(\d{20})\.([0-9a-f]{16})\.spool")
_ID = re.compile(r"([0-9a-f]{32}) (\d{1,18})\n")
_RESERVED = 1000


class Place(NamedTuple):
    """A point between records: a segment's number and a byte offset in its file."""

    segment: int
    position: int


class Record(NamedTuple):
    """A message as it came; `received_us` is the time of receipt in µs since 1970."""

    topic: str
    payload: bytes
    received_us: int


class SpoolFull(PaqettError):
    """The cap is reached, the disk is short or refused: nothing of the append counts."""


class SpoolInUse(PaqettError):
    """Another process holds the spool's folder."""


class _Segment:
    """One file; `end` is how many of its bytes are synced, and no reader looks further."""

    def __init__(self, folder: Path, number: int, salt: str, end: int = 0) -> None:
        self.number = number
        self.path = folder / f"{number:020}.{salt}.spool"
        self.end = end
        self.fd = -1
        self._magic, self._seed = _SALT.unpack(bytes.fromhex(salt))

    def frame(self, records: Sequence[Record]) -> bytes:
        """The records' frames; struct.error for a topic of more than 65,535 bytes."""
        parts: list[bytes] = []
        for name, payload, received_us in records:
            topic = name.encode()
            body = _BODY.pack(received_us, len(topic)) + topic
            length = len(body) + len(payload)
            crc = crc32(payload, crc32(body, crc32(_LENGTH.pack(length), self._seed)))
            parts += (_HEAD.pack(self._magic, length, crc), body, payload)
        return b"".join(parts)

    def load(self, position: int, size: int) -> bytes:
        """At most `size` bytes from `position`, fewer where the file is shorter."""
        with _opened(self.path, os.O_RDONLY) as fd:
            return os.pread(fd, size, position)

    def first_frame(self, data: bytes) -> int:
        """The offset of the first whole frame, the length of `data` where there is none."""
        at = 0
        while at >= 0 and not self._frame_end(data, at):
            # A damaged frame's length is not believed: it could lead past sound ones.
            at = data.find(self._magic, at + 1)
        return at if at >= 0 else len(data)

    def parse(self, data: bytes, at: int, limit: int, stop: int) -> tuple[list[Record], int]:
        """Up to `limit` records from `at` and the offset behind them.

        The first may be of any size, the others end by `stop`; damage ends them too.
        """
        records: list[Record] = []
        while len(records) < limit and (end := self._frame_end(data, at)):
            if end > stop and records:
                break
            received_us, length = _BODY.unpack_from(data, at + _HEAD.size)
            topic = at + _HEAD.size + _BODY.size
            payload = topic + length
            records.append(Record(data[topic:payload].decode(), data[payload:end], received_us))
            at = end
        return records, at

    def _frame_end(self, data: bytes, at: int) -> int:
        """Where the frame at `at` ends; 0 where no whole and sound frame stands there."""
        body = at + _HEAD.size
        if body + _BODY.size > len(data):
            return 0
        magic, length, crc = _HEAD.unpack_from(data, at)
        end: int = body + length
        if magic != self._magic or length < _BODY.size or end > len(data):
            return 0
        return end if crc32(data[body:end], crc32(data[at + 4 : at + 8], self._seed)) == crc else 0


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
        self._folder = folder
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._segment_bytes = segment_bytes
        self._segments: dict[int, _Segment] = {}
        self._current: _Segment | None = None
        self._writing = threading.Lock()
        self._flock = -1
        self._reserved = 0
        self._last_corrupt = Place(-1, -1)
        self.corrupt_records = 0
        self.place = Place(0, 0)
        try:
            self._flock = _hold(folder)
            self._scan()
            self.id, self._next = self._identify()
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
        if place.segment >= self._next:
            _logger.warning("the database is ahead of the spool", segment=place.segment)
            self._next = place.segment + 1
        else:
            self.advance(place)

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
            if self._flock >= 0:
                os.close(self._flock)
                self._flock = -1

    def _on_disk(self) -> int:
        return sum(segment.end for segment in list(self._segments.values()))

    def _scan(self) -> None:
        for path in sorted(self._folder.glob("*.spool")):
            if name := _NAME.fullmatch(path.name):
                number, size = int(name[1]), path.stat().st_size
                if size:
                    self._segments[number] = _Segment(self._folder, number, name[2], size)
                else:
                    path.unlink()

    def _identify(self) -> tuple[str, int]:
        """The spool's name and a segment number that no earlier life has used."""
        file = self._folder / "id"
        above = max(self._segments, default=0) + 1
        if found := _ID.fullmatch(file.read_text(errors="replace") if file.exists() else ""):
            return found[1], max(int(found[2]), above)
        # An unknown name has no place in the database, so what is here is replayed whole.
        name = secrets.token_hex(16)
        self._save_id(name, above)
        return name, above

    def _save_id(self, name: str, number: int) -> None:
        new = self._folder / "id.new"
        with _opened(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) as fd:
            _write_all(fd, f"{name} {number}\n".encode())
            os.fsync(fd)
        new.replace(self._folder / "id")
        sync_folder(self._folder)

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
        segment = self._current or self._fresh()
        data = segment.frame(records)
        self._check_room(len(data))
        if segment.fd < 0:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
            segment.fd = os.open(segment.path, flags, 0o600)
            self._current = segment
        _write_all(segment.fd, data)
        os.fsync(segment.fd)
        if segment.end == 0:
            sync_folder(self._folder)
        # The event loop reads beside this thread: each of these is one step for it.
        start, segment.end = segment.end, segment.end + len(data)
        self._segments[segment.number] = segment
        return Place(segment.number, start), Place(segment.number, segment.end)

    def _fresh(self) -> _Segment:
        """A segment without a file yet, its number reserved on disk ahead of use.

        An emptied folder does not show the numbers used and a clock can be set back; below an old
        place in the database new records would pass for replayed.
        """
        number = self._next
        if number >= self._reserved:
            self._save_id(self.id, number + _RESERVED)
            self._reserved = number + _RESERVED
        self._next = number + 1
        return _Segment(self._folder, number, secrets.token_hex(_SALT.size))

    def _check_room(self, size: int) -> None:
        if self._on_disk() + size > self._max_bytes:
            raise SpoolFull(f"the spool has reached its cap of {self._max_bytes} bytes")
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize - size < self._min_free_bytes:
            raise SpoolFull(f"the spool's disk has less than {self._min_free_bytes} bytes free")

    def _abandon(self) -> None:
        """Cut off what a failed append left; after a failed fsync a file is not written again."""
        if segment := self._current:
            with suppress(OSError):
                if segment.end:
                    os.ftruncate(segment.fd, segment.end)
                    os.fsync(segment.fd)
                else:
                    segment.path.unlink()
            self._seal()

    def _seal(self) -> None:
        if self._current:
            with suppress(OSError):
                os.close(self._current.fd)
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
        self, segment: _Segment, start: int, limit: int, room: int, *, widen: bool
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


def _hold(folder: Path) -> int:
    """Make the folder and lock it; the lock lasts as long as the descriptor."""
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        sync_folder(folder.parent)
    fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise SpoolInUse(f"another process holds the spool {folder}") from error
    return fd


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
