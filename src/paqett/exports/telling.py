"""What describes an archive: the manifest for programs, the README for people."""

from datetime import datetime

import msgspec

from paqett.exports.archive import Archive
from paqett.register import Register

_README = """\
All your data from Paqett
=========================

This archive holds everything {public_url} keeps of the account {email}
(number {account}), as it was at one moment: {moment} UTC.

Each file below is one kind of data. {form}
Times are UTC. manifest.json says the same for programs: for each file its
columns, how many rows it has, its size in bytes and its SHA-256 checksum.

readings.{suffix} and readings_text.{suffix} are what your devices sent. A reading
has the time it was measured, the device's id, the metric's name and the value;
devices.{suffix} and metrics.{suffix} tell more of both. They go back as far as your
plan keeps readings.

Not in it are secrets, such as hashes of your password and keys: they would
only help whoever gets hold of this archive. Below, each file names what was
left out of it; and at the end stands what is kept of you elsewhere or for
moments only, and why it is not here.

Files
-----
"""
_FORMS = {
    "ndjson": "Each line is one JSON object (NDJSON).",
    "csv": "The first line names the columns (CSV); lists and objects in it are JSON.\n"
    "A text that a spreadsheet would run as a formula has a ' before it; in an archive\n"
    "of NDJSON every text is as it was.",
}


class Subject(msgspec.Struct, frozen=True):
    """Whose archive it is, and of whom."""

    account_id: int
    email: str
    public_url: str


def manifest(archive: Archive, subject: Subject) -> str:
    """`manifest.json`."""
    told = {
        "format": archive.form,
        "version": 1,
        "account": subject.account_id,
        "created_at": archive.moment,
        "source": subject.public_url,
        "rows": archive.rows,
        "files": archive.files,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n"


def readme(archive: Archive, subject: Subject, register: Register) -> str:
    """`README.txt`."""
    text = _README.format(
        public_url=subject.public_url, email=subject.email, account=subject.account_id,
        moment=_moment(archive.moment), form=_FORMS[archive.form], suffix=archive.form,
    )  # fmt: skip
    for file in archive.files:
        text += f"\n{file.name}: {file.about}, {file.rows:,} {_rows(file.rows)}.\n"
        text += f"  Kept {file.why}; {file.kept}.\n"
        for name, reason in file.withheld.items():
            text += f"  Left out: {name} ({reason}).\n"
    text += "\nNot in this archive\n-------------------\n"
    for entry in register.entries:
        if entry.unexported is not None and entry.erased != "nothing":
            text += f"\n{entry.about}: {entry.unexported}.\n"
    return text


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
