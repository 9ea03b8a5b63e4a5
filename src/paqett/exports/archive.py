"""The archive itself: a zip of NDJSON or CSV files, written as it comes, with what describes it."""

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

from paqett.errors import NotRetried
from paqett.exports.records import Form, Written

# of text that repeats itself level 1 takes a third of the time of level 6, for a quarter more bytes
_LEVEL = 1
_encoder = msgspec.json.Encoder()
# what a spreadsheet may run; a sign before letters and digits alone can do nothing
_FORMULA = re.compile("[=@\t\r\n\uff1d\uff20\uff0b\uff0d]|[+-](?![\\w.+-]*\\Z)")


class DiskFull(NotRetried):
    """The archive would leave less of the disk free than the setting says."""


class File(msgspec.Struct, frozen=True):
    """A file of the archive, as the manifest describes it; `columns` by name, in their order."""

    name: str
    about: str
    why: str
    kept: str
    columns: dict[str, str]
    withheld: dict[str, str]
    rows: int
    bytes: int
    sha256: str


class Description(msgspec.Struct, frozen=True):
    """What a file is, before anything is written to it."""

    stem: str
    about: str
    why: str
    kept: str
    columns: dict[str, str]
    withheld: dict[str, str] = {}


class Archive:
    """A zip that is being written to `draft`; not for several threads at once."""

    def __init__(self, draft: Path, form: Form, moment: datetime, min_free_bytes: int) -> None:
        self.form, self.moment = form, moment
        self.files: list[File] = []
        self._draft, self._min_free = draft, min_free_bytes
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._out = os.fdopen(handle, "w+b")
        self._zip = ZipFile(self._out, "w", ZIP_DEFLATED, compresslevel=_LEVEL)
        self._member: _Member | None = None

    @property
    def rows(self) -> int:
        """Rows written so far."""
        open_one = self._member.rows if self._member else 0
        return open_one + sum(file.rows for file in self.files)

    def begin(self, description: Description) -> None:
        """Begin a file; what is written from here on is its."""
        name = f"{description.stem}.{self.form}"
        out = self._zip.open(self._info(name), "w", force_zip64=True)
        self._member = _Member(out, name, description)
        if self.form == "csv":
            self.write(csv_line(description.columns), 0)

    def write(self, data: bytes, rows: int) -> None:
        """Whole lines of the open file. Raises `DiskFull`."""
        if shutil.disk_usage(self._draft.parent).free < self._min_free:
            raise DiskFull("too little of the disk is free (exports.min_free_bytes)")
        assert self._member is not None  # noqa: S101 - begin comes first
        self._member.write(data, rows)

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of the open file, a line each."""
        self.write(lines(self.form, rows), len(rows))

    def end(self) -> None:
        """The open file is whole."""
        assert self._member is not None  # noqa: S101 - begin comes first
        self.files.append(self._member.close())
        self._member = None

    def add(self, name: str, text: str) -> None:
        """A small file that is no data."""
        self._zip.writestr(self._info(name), text, compresslevel=_LEVEL)

    def finish(self) -> Written:
        """The archive is whole, and on disk."""
        self._zip.close()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.seek(0)
        digest = hashlib.file_digest(self._out, "sha256").hexdigest()
        size = self._out.seek(0, os.SEEK_END)
        self._out.close()
        return Written(self.rows, size, digest)

    def abandon(self) -> None:
        """Leave nothing behind, whatever the disk says to the last bytes of it."""
        for one in (self._member, self._zip, self._out):
            if one is not None:
                with suppress(OSError, ValueError):
                    one.close()
        self._draft.unlink(missing_ok=True)

    def _info(self, name: str) -> ZipInfo:
        info = ZipInfo(name, self.moment.astimezone(UTC).timetuple()[:6])
        info.compress_type = ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return info


class _Member:
    """A file of the zip, counted and checksummed as it is written."""

    def __init__(self, out: IO[bytes], name: str, description: Description) -> None:
        self.rows = 0
        self._out, self._name, self._description = out, name, description
        self._bytes, self._digest = 0, hashlib.sha256()

    def write(self, data: bytes, rows: int) -> None:
        self.rows += rows
        self._bytes += len(data)
        self._digest.update(data)
        self._out.write(data)

    def close(self) -> File:
        self._out.close()
        described = msgspec.structs.asdict(self._description)
        del described["stem"]
        return File(
            name=self._name, **described, rows=self.rows, bytes=self._bytes,
            sha256=self._digest.hexdigest(),
        )  # fmt: skip


def lines(form: Form, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A line for each row: a JSON object, or CSV with lists and objects as JSON."""
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    if form == "ndjson":
        return _encoder.encode_lines(plain)
    return b"".join(csv_line([_cell(value) for value in row.values()]) for row in plain)


def _plain(value: Any) -> Any:
    """What JSON holds: times as RFC 3339, addresses as text, bytes as the text they mostly are."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return msgspec.to_builtins(value.astimezone(UTC))
    return msgspec.to_builtins(value, enc_hook=str)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def csv_line(cells: Iterable[str]) -> bytes:
    """A line of CSV (RFC 4180). A text that a spreadsheet would run has a `'` before it."""
    out = io.StringIO()
    harmless = [f"'{cell}" if _FORMULA.match(cell) else cell for cell in cells]
    # by the line's end it is told, the writer quotes both of its letters
    csv.writer(out, lineterminator="\r\n").writerow(harmless)
    return out.getvalue().removesuffix("\r\n").encode() + b"\n"
