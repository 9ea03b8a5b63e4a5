"""One file of the spool: messages in frames, each with a checksum.

A frame: magic (4 bytes), length of the body (u32), CRC-32 of length and body (u32); the body: time
of receipt in µs (i64), length of the topic (u16), topic, payload. All little-endian. Magic and the
CRC's start are random for each segment and stand in its file's name, so that no payload can pose
as a frame where a damaged file is searched for the next one.
"""

import os
import re
import secrets
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

_HEAD = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<qH")
_SALT = struct.Struct("<4sI")
_NAME = re.compile(r"(\d{20})\.([0-9a-f]{16})\.spool")


class Record(NamedTuple):
    """A message as it came; `received_us` is the time of receipt in µs since 1970."""

    topic: str
    payload: bytes
    received_us: int


class Segment:
    """One file; `end` is how many of its bytes are synced, and no reader looks further."""

    def __init__(self, folder: Path, number: int, salt: str, end: int = 0) -> None:
        self.number = number
        self.path = folder / f"{number:020}.{salt}.spool"
        self.end = end
        self._fd = -1
        self._magic, self._seed = _SALT.unpack(bytes.fromhex(salt))

    @classmethod
    def new(cls, folder: Path, number: int) -> "Segment":
        """One with no file yet."""
        return cls(folder, number, secrets.token_hex(_SALT.size))

    @classmethod
    def found(cls, path: Path) -> "Segment | None":
        """What is in the file at `path`; None where its name is no segment's."""
        name = _NAME.fullmatch(path.name)
        return cls(path.parent, int(name[1]), name[2], path.stat().st_size) if name else None

    def create(self) -> None:
        """Make the file, to be written from its start. Raises `OSError`."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        self._fd = os.open(self.path, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Append and sync; `end` stays, for the caller to move on. Raises `OSError`."""
        write_all(self._fd, data)
        os.fsync(self._fd)

    def cut_off(self) -> None:
        """Whatever is behind `end`, with the file itself where that is all. Raises `OSError`."""
        if self.end:
            os.ftruncate(self._fd, self.end)
            os.fsync(self._fd)
        else:
            self.path.unlink()

    def close(self) -> None:
        """It is written no more."""
        with suppress(OSError):
            os.close(self._fd)
        self._fd = -1

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
        with opened(self.path, os.O_RDONLY) as fd:
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


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Its descriptor, for as long as the block lasts; a new file is its owner's alone."""
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write it however many writes that takes. Raises `OSError`."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
