"""Whether the folders hold what they may: files are counted, and named by their kind alone."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from paqett import register
from paqett.audit.report import Finding
from paqett.erasure import tombstones
from paqett.errors import ConfigurationError
from paqett.exports import records
from paqett.exports.records import Status
from paqett.register import Register

_SLACK = timedelta(minutes=20)  # two rounds of the worker's
_DAY = timedelta(days=1)


def of_folder(kept: Register, folder: Path) -> list[Finding]:
    """Files of the data folder that are in no store of the register."""
    if not folder.is_dir():
        return [Finding("register", "data folder", True, "there is none on this machine")]
    sealed: list[str] = []
    try:
        paths = list(_files(kept, folder, sealed))
    except OSError as error:
        return [_unreadable("register", "data folder", error)]
    mend = (
        f"look what they are in {folder}, and add them to config/personal-data.toml or remove them"
    )
    strange = Counter(_place(kept, path) for path in register.unlisted(kept, paths))
    if strange:
        return [
            Finding("register", "data folder", False, f"unknown files in {place}: {files}", mend)
            for place, files in sorted(strange.items())
        ]
    detail = f"{len(paths)} files, each of them known"
    if sealed:
        detail += f"; {', '.join(sorted(sealed))}: for other processes' users alone"
    return [Finding("register", "data folder", True, detail)]


def _files(kept: Register, folder: Path, sealed: list[str]) -> Iterator[str]:
    """Below the folder, without looking into what is a store's whole folder.

    `sealed` gets what another process keeps to itself: one user cannot look into another's.
    """
    whole = {path.removesuffix("/**") for store in kept.stores.values() for path in store.paths
             if path.endswith("/**")}  # fmt: skip

    places = _places(kept)

    def fail(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        if not isinstance(error, PermissionError) or place not in places:
            raise error
        sealed.append(place)

    for parent, folders, names in os.walk(folder, onerror=fail):
        place = os.path.relpath(parent, folder)
        prefix = "" if place == "." else f"{place}/"
        folders[:] = [name for name in folders if f"{prefix}{name}" not in whole]
        yield from (f"{prefix}{name}" for name in names)


def _place(kept: Register, path: str) -> str:
    """A folder of the register; how others are called is nobody's business here."""
    first, _, rest = path.partition("/")
    if not rest:
        return "the folder itself"
    return first if first in _places(kept) else "folders of other names"


def _places(kept: Register) -> set[str]:
    """The folders of the data folder in which some store lies."""
    return {pattern.partition("/")[0] for store in kept.stores.values() for pattern in store.paths
            if "/" in pattern}  # fmt: skip


def of_exports(
    folder: Path, paths: Iterable[Path], archives: Collection[tuple[int, int, Status]],
    erasing: Collection[int], now: datetime,
) -> Finding:  # fmt: skip
    """Files that belong to no archive; those of accounts that are being erased go just now."""
    there = list(paths)
    going = tuple(f"{account}-" for account in erasing)
    strange = [
        path
        for path in records.ownerless(there, archives)
        if not (going and path.name.startswith(going)) and not _is_young(path, now)
    ]
    detail = f"{len(strange)} of {len(there)} files are of no archive there is"
    mend = f"start `paqett worker`, which removes them from {folder}"
    return Finding("exports", "export folder", not strange, detail, mend)


def _is_young(path: Path, now: datetime) -> bool:
    """A draft that was just broken off, or a file that has gone meanwhile."""
    age = _age(path, now)
    return age is None or (path.suffix == ".part" and age < _SLACK)


def of_age(
    check: str, subject: str, paths: Iterable[Path], longest: timedelta, now: datetime,
    slack: timedelta = _SLACK,
) -> Finding:  # fmt: skip
    """The oldest of these files against its period."""
    ages = [age for path in paths if (age := _age(path, now)) is not None]
    if not ages:
        return Finding(check, subject, True, "there is none")
    detail = (
        f"{len(ages)} files, the oldest {max(ages) / _DAY:.2f} days old, its period is"
        f" {longest / _DAY:.2f} days"
    )
    mend = "start what looks after them: `paqett worker` for mails, `paqett up` for its logs"
    return Finding(check, subject, max(ages) <= longest + slack, detail, mend)


def _age(path: Path, now: datetime) -> timedelta | None:
    try:
        return now - datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def of_tombstones(folder: Path, done: int) -> Finding:
    """The file that a restore re-applies: readable, with every account that was erased."""
    try:
        stones = sum(stone.device is None for stone in tombstones.read(folder))
    except (OSError, ConfigurationError) as error:
        return _unreadable("erasures", "erasures.ndjson", error)
    detail = f"{stones} accounts in it, {done} were erased"
    mend = "run this where the worker runs; put the file back beside the backups"
    return Finding("erasures", "erasures.ndjson", stones >= done, detail, mend)


def _unreadable(check: str, subject: str, error: Exception) -> Finding:
    """What an error of the system says names no more than our own folders' paths."""
    said = error.strerror if isinstance(error, OSError) else "a line is none of ours"
    return Finding(
        check, subject, False, f"cannot be read: {said}", "run this as the worker's user"
    )
