"""An account's exports: asked for by its person, written by a job, fetched, gone after a week."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from paqett import jobs, lists, notices
from paqett.accounts import Account
from paqett.db import Connection
from paqett.errors import Conflict, NotFound, Problem, TooManyRequests
from paqett.plans import Plan
from paqett.sqlfiles import query

Form = Literal["ndjson", "csv"]
Status = Literal["waiting", "running", "ready", "failed", "expired"]
_DAY = timedelta(days=1)


class Export(msgspec.Struct, frozen=True):
    """An archive; `progress` is how much of it is written, 0 to 1, `rows` how many rows so far.

    `bytes` and `sha256` are the archive's, once it is ready; at `expires_at` it is removed.
    """

    id: int
    format: Form
    status: Status
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    progress: float
    rows: int
    bytes: int | None
    sha256: str | None


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next_cursor` is None on the last page."""

    items: list[Export]
    next_cursor: str | None


class ExportLimit(TooManyRequests):
    """The plan's exports of this UTC day are used up."""

    code = "export_limit"
    title = "No more exports today"


class ExportInProgress(Conflict):
    """One export at a time."""

    code = "export_in_progress"
    title = "Export in progress"

    def __init__(self) -> None:
        super().__init__("An export of this account is being made; wait until it is finished.")


class ExportNotReady(Conflict):
    """There is no archive yet, or there will be none."""

    code = "export_not_ready"
    title = "Export not ready"


class ExportExpired(Problem):
    """The archive was there, and has had its time."""

    status = 410
    code = "export_expired"
    title = "Export expired"

    def __init__(self) -> None:
        super().__init__("The archive was removed when its time was over; ask for another.")


async def request(
    conn: Connection, account: Account, plan: Plan, form: Form, now: datetime
) -> Export:
    """A new export, and the job that writes it.

    Raises `ExportLimit` where the plan's exports of the UTC day are used up, `ExportInProgress`.
    """
    await _check_limit(conn, account.id, plan.exports_per_day, now)
    values = {"account": account.id, "format": form, "now": now}
    row = await (await conn.execute(query("create_export"), values)).fetchone()
    if row is None:
        raise ExportInProgress
    made = msgspec.convert(row, Export)
    await jobs.defer(
        conn, "write_export", queue=jobs.EXPORTS, account_id=account.id, export_id=made.id
    )
    return made


async def _check_limit(conn: Connection, account_id: int, most: int | None, now: datetime) -> None:
    if most is None:
        return
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    values = {"account": account_id, "from": midnight}
    row = await (await conn.execute(query("count_exports"), values)).fetchone()
    if row is not None and row["exports"] >= most:
        left = midnight + _DAY - now
        raise ExportLimit("exports", most, int(_DAY.total_seconds()), max(1, left.seconds))


async def list_exports(
    conn: Connection, account_id: int, *, limit: int, cursor: str | None
) -> Page:
    """The account's exports, newest first. Raises `Invalid` for a cursor that is not ours."""
    values = {"account": account_id, "before": lists.read_id(cursor), "limit": limit + 1}
    rows = await (await conn.execute(query("list_exports"), values)).fetchall()
    items = [msgspec.convert(row, Export) for row in rows[:limit]]
    return Page(items, lists.next_id(rows, limit))


async def get(conn: Connection, account_id: int, export_id: int) -> Export:
    """One of the account's exports. Raises `NotFound`."""
    values = {"account": account_id, "export": export_id}
    row = await (await conn.execute(query("get_export"), values)).fetchone()
    if row is None:
        raise NotFound("There is no such export.")
    return msgspec.convert(row, Export)


async def get_ready(conn: Connection, account_id: int, export_id: int, now: datetime) -> Export:
    """The same where its archive can be fetched.

    Raises `NotFound`, `ExportNotReady`, `ExportExpired`.
    """
    found = await get(conn, account_id, export_id)
    if found.status == "expired" or (found.expires_at is not None and found.expires_at <= now):
        raise ExportExpired
    if found.status != "ready":
        raise ExportNotReady(f"The export is {found.status}.")
    return found


async def begin(conn: Connection, account_id: int, export_id: int, now: datetime) -> Export | None:
    """It is being written, from its beginning; None where it is finished, or the account gone."""
    values = {"account": account_id, "export": export_id, "now": now}
    row = await (await conn.execute(query("begin_export"), values)).fetchone()
    return None if row is None else msgspec.convert(row, Export)


async def note_progress(
    conn: Connection, account_id: int, export_id: int, progress: float, rows: int
) -> bool:
    """How far it is; False where the account is gone meanwhile."""
    values = {"account": account_id, "export": export_id, "progress": progress, "rows": rows}
    found = await conn.execute(query("note_export_progress"), values)
    return await found.fetchone() is not None


class Written(msgspec.Struct, frozen=True):
    """A whole archive: how many rows are in it, its size in bytes, its checksum."""

    rows: int
    bytes: int
    sha256: str


async def finish(
    conn: Connection, account_id: int, export_id: int, written: Written, now: datetime,
    kept: timedelta,
) -> bool:  # fmt: skip
    """The archive is whole: tell its person. False where the account is gone meanwhile."""
    values = {
        "account": account_id, "export": export_id, "now": now, "expires": now + kept,
        **msgspec.structs.asdict(written),
    }  # fmt: skip
    if await (await conn.execute(query("finish_export"), values)).fetchone() is None:
        return False
    await notices.notify(
        conn, account_id, "export_ready", export=export_id, rows=written.rows, bytes=written.bytes,
        expires_at=now + kept,
    )  # fmt: skip
    return True


async def fail_abandoned(conn: Connection, now: datetime) -> int:
    """Exports whose job has failed for good are told; how many there were."""
    rows = await (await conn.execute(query("unscoped_fail_exports"), {"now": now})).fetchall()
    for row in rows:
        await notices.notify(conn, row["account_id"], "export_failed")
    return len(rows)


def file_stem(account_id: int, export_id: int) -> str:
    """How the archive's files are called, up to the first dot."""
    return f"{account_id}-{export_id}"


def file_of(folder: Path, account_id: int, export_id: int) -> Path:
    """Where the whole archive is."""
    return folder / f"{file_stem(account_id, export_id)}.zip"


def remove_drafts(folder: Path, account_id: int, export_id: int) -> None:
    """What earlier attempts at an archive left behind."""
    for draft in folder.glob(f"{file_stem(account_id, export_id)}.*.part"):
        draft.unlink(missing_ok=True)


def files_of(folder: Path, account_id: int) -> list[Path]:
    """Everything the folder holds of an account: archives, whole and half written."""
    return sorted(folder.glob(f"{account_id}-*"))


def ownerless(paths: Iterable[Path], archives: Iterable[tuple[int, int, Status]]) -> list[Path]:
    """Those of no archive there is; one that is not being written has no drafts."""
    known = {file_stem(account, export): status for account, export, status in archives}
    found = []
    for path in paths:
        status = known.get(path.name.partition(".")[0])
        if status is None or (path.suffix == ".part" and status != "running"):
            found.append(path)
    return found
