"""Where histories are kept between runs: a cluster with two databases, one of few readings."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from paqett import db, migrate
from paqett.local import postgres
from paqett.settings import load
from suite import history
from suite.history import History
from suite.stand import Stand, stand

BIG, SMALL = "big", "small"
_OLDEST = timedelta(days=1)  # beyond it retention has ended a good part of it


@dataclass(frozen=True)
class Archive:
    """A cluster in `folder` with a history in each of two databases."""

    folder: Path
    big: History
    small: History

    @property
    def _mark(self) -> Path:
        return self.folder / "made"

    @property
    def _described(self) -> str:
        return f"{self.big!r} {self.small!r}"

    def end(self) -> datetime | None:
        """When its histories end; None where they are not whole, too old or others."""
        try:
            moment, described = self._mark.read_text().split(" ", 1)
        except OSError:
            return None
        end = datetime.fromisoformat(moment)
        fits = described == self._described and history.now() - end < _OLDEST
        return end if fits else None

    def note(self, end: datetime) -> None:
        """They are whole."""
        self._mark.write_text(f"{end.isoformat()} {self._described}")


_FOLDER = Path("/var/tmp/paqett-readings")
FULL = Archive(_FOLDER / "full", history.FULL, history.FULL_SMALL)
QUICK = Archive(_FOLDER / "quick", history.QUICK, history.QUICK_SMALL)


@contextmanager
def opened(archive: Archive, devices: int) -> Iterator[tuple[Stand, datetime]]:
    """A stand on the archive and when its histories end; they are made where they are not."""
    end = archive.end()
    if end is None:
        shutil.rmtree(archive.folder, ignore_errors=True)
        archive.folder.mkdir(parents=True)
    with stand(devices, home=archive.folder / "postgres", database=BIG) as made:
        postgres.create_database(made.cluster, SMALL)
        asyncio.run(_migrate(made.url_of(SMALL)))
        if end is None:
            end = history.now()
            _fill(made.url_of(SMALL), archive.small, end)
            _fill(made.url_of(BIG), archive.big, end)
            archive.note(end)
        yield made, end


async def _migrate(url: str) -> None:
    settings = load({"PAQETT_DATABASE__URL": url})
    async with await db.connect(settings.database, "bench", autocommit=True) as conn:
        await migrate.migrate(conn)


def _fill(url: str, made: History, end: datetime) -> None:
    began = time.monotonic()
    with psycopg.connect(url, options="-c synchronous_commit=off") as conn:
        history.make(conn, made, end)
    print(f"{made.readings:,} readings made in {time.monotonic() - began:.0f} s", flush=True)
