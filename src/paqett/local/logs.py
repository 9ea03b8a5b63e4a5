"""Log files by the day, so that a day's lines can be forgotten."""

import asyncio
import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

_CHECK_EVERY_S = 60.0
_ROTATED = re.compile(r".+-(\d{4}-\d{2}-\d{2})\.log")


def rotate(folder: Path, today: date, kept: timedelta) -> None:
    """What was written before `today` gets the day's name; days older than `kept` are removed.

    Copied and cut, since the processes keep their files open: what is written in that very moment
    is lost.
    """
    for path in sorted(folder.glob("*.log")):
        day = _day_of(path)
        if day is not None:
            if today - day >= kept:
                path.unlink(missing_ok=True)
            continue
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
        if written < today and path.stat().st_size:
            move(path, written)


def end_day(folder: Path, day: date) -> None:
    """Everything that is still written was written on `day`, which has just ended."""
    for path in sorted(folder.glob("*.log")):
        if _day_of(path) is None and path.stat().st_size:
            move(path, day)


def move(path: Path, day: date) -> None:
    """The file's lines to those of `day`."""
    target = path.with_name(f"{path.stem}-{day}.log")
    with path.open("rb") as lines, target.open("ab") as out:
        target.chmod(path.stat().st_mode & 0o777)
        shutil.copyfileobj(lines, out)
    with path.open("r+b") as file:
        file.truncate(0)


def _day_of(path: Path) -> date | None:
    """The day of a file that was moved; None for one that is still written."""
    found = _ROTATED.fullmatch(path.name)
    return date.fromisoformat(found[1]) if found else None


async def watch(
    folder: Path, kept: timedelta, stop: asyncio.Event, clock: Callable[[], datetime]
) -> None:
    """Until `stop`: at every new day (UTC) the last one's lines are moved."""
    day = clock().date()
    rotate(folder, day, kept)
    while not stop.is_set():
        today = clock().date()
        if today != day:
            end_day(folder, day)
            day = today
            rotate(folder, day, kept)
        try:
            await asyncio.wait_for(stop.wait(), _CHECK_EVERY_S)
        except TimeoutError:
            continue
