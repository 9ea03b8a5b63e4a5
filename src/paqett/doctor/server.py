"""The PostgreSQL server itself: whose roles, whose clock, and whether it keeps what it commits."""

from datetime import datetime, timedelta
from typing import Any

import psutil

from paqett.children import LOOPBACK
from paqett.db import Connection
from paqett.doctor.findings import Finding
from paqett.sqlfiles import query

MIB, GIB = 2**20, 2**30
_CLOCK_WARNING = timedelta(seconds=2)
_CLOCK_FAILED = timedelta(seconds=30)
_UNTOUCHED_BYTES = 128 * MIB  # what initdb writes
_SMALL_MACHINE_BYTES = 2 * GIB
_LOCKS = 256
_STATEMENT_S, _LOCK_S = 60.0, 5.0


async def examine_server(conn: Connection, now: datetime) -> list[Finding]:
    """Clock, roles, durability and memory; `now` is this machine's, read just before.

    Nothing that is examined in the same transaction waits for ever, for a table or otherwise.
    """
    clock = clock_finding("the database's", await _now(conn), now)
    patience = {"statement": f"{_STATEMENT_S * 1000:.0f}", "lock": f"{_LOCK_S * 1000:.0f}"}
    await conn.execute(query("unscoped_wait_no_longer"), patience)
    role = await (await conn.execute(query("unscoped_roles_in_use"))).fetchone()
    rows = await (await conn.execute(query("unscoped_server_settings"))).fetchall()
    said = {row["name"]: row["setting"] for row in rows}
    memory = psutil.virtual_memory().total if _is_here(conn) else None
    return [clock, roles_finding(role or {}), durability_finding(said),
            memory_finding(said, memory), locks_finding(said)]  # fmt: skip


async def _now(conn: Connection) -> datetime:
    row = await (await conn.execute(query("unscoped_server_clock"))).fetchone()
    assert row is not None  # noqa: S101 - a function gives a row
    found: datetime = row["now"]
    return found


def _is_here(conn: Connection) -> bool:
    """Whether the server is on this machine, so that its memory is ours."""
    return not conn.info.host or conn.info.host.startswith("/") or conn.info.host in LOOPBACK


def clock_finding(whose: str, theirs: datetime, ours: datetime) -> Finding:
    """Readings are judged by this machine's clock, periods by the database's."""
    apart = abs(theirs - ours)
    detail = f"{apart.total_seconds():.1f} s from {whose}"
    if apart <= _CLOCK_WARNING:
        return Finding("clock", "ok", detail)
    mend = "set both by NTP: `timedatectl set-ntp true`, or install chrony"
    return Finding("clock", "failed" if apart > _CLOCK_FAILED else "warning", detail, mend)


def roles_finding(row: dict[str, Any]) -> Finding:
    """Each process signs in as its own role, which may do what it must and no more."""
    migrate = "run `paqett migrate` with a superuser's PAQETT_DATABASE__URL"
    if row["roles"] < row["wanted"]:
        detail = "this server lacks the processes' own roles, so all of them are one"
        return Finding("roles", "warning", detail, f"{migrate}, where the server allows it")
    if row["mighty"]:
        detail = f"{row['mighty']} may do more than they were made for"
        mend = "ALTER ROLE … NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
        return Finding("roles", "failed", detail, mend)
    if row["lacking"]:
        detail = f"{row['lacking']} lack what their processes need"
        return Finding("roles", "failed", detail, migrate)
    if row["superusers"]:
        detail = f"superusers run {row['superusers']}"
        mend = "give each process its own role's address (docs/install.md)"
        return Finding("roles", "warning", detail, mend)
    return Finding("roles", "ok", f"{row['wanted']}, none with more than it needs")


def durability_finding(said: dict[str, str]) -> Finding:
    """What is acknowledged after a commit must survive a power cut."""
    careless = [
        name
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if said.get(name) == "off"
    ]
    if careless:
        detail = f"{', '.join(careless)} off: a power cut loses acknowledged readings"
        return Finding("durability", "failed", detail, f"set {' = on, '.join(careless)} = on")
    return Finding("durability", "ok", "a commit is on disk")


def memory_finding(said: dict[str, str], memory: int | None) -> Finding:
    """`memory` is the server's, in bytes, where it is known."""
    size = int(said.get("shared_buffers", "0")) * int(said.get("block_size", "8192"))
    detail = f"{size // MIB} MiB"
    if memory is not None:
        detail += f" of {memory // MIB} MiB memory"
    if memory is not None and size > memory // 2:
        mend = f"set shared_buffers = '{memory // 4 // MIB}MB' and restart PostgreSQL"
        return Finding("shared_buffers", "warning", f"{detail}: more than half", mend)
    if size > _UNTOUCHED_BYTES or (memory is not None and memory < _SMALL_MACHINE_BYTES):
        return Finding("shared_buffers", "ok", detail)
    quarter = "a quarter of its memory" if memory is None else f"'{memory // 4 // MIB}MB'"
    mend = f"set shared_buffers = {quarter} and restart PostgreSQL"
    return Finding("shared_buffers", "warning", f"{detail}: as PostgreSQL ships it", mend)


def locks_finding(said: dict[str, str]) -> Finding:
    """A statement over a year locks two relations a day of each hypertable it touches."""
    locks = int(said.get("max_locks_per_transaction", "0"))
    if locks >= _LOCKS:
        return Finding("locks", "ok", f"max_locks_per_transaction is {locks}")
    return Finding(
        "locks",
        "warning",
        f"max_locks_per_transaction is {locks}: long ranges may end with 'out of shared memory'",
        "set max_locks_per_transaction = 512 and restart PostgreSQL",
    )
