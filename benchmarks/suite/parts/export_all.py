"""Export All My Data: an archive of N readings by the worker, against COPY of the same rows.

By turns in one run: `COPY (SELECT time, series_id, value …) TO STDOUT`, read and thrown away, and
the whole archive, with every other table, deflate, checksums and manifest, on the disk. The worker
is a process of its own; memory is its greatest RSS, before and after.
"""

import asyncio
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from paqett import accounts, db
from paqett.exports import records
from paqett.plans import load_plans
from paqett.settings import load
from suite import history
from suite.form import Form
from suite.history import History
from suite.stand import PLANS, BenchmarkError, Stand, stand

AIM = 0.5  # of COPY's rate
_FULL = History(7, 164, 43_200)  # 10 million readings
_QUICK = History(2, 55, 43_200)  # 1 million
_COPY = "COPY (SELECT time, series_id, value FROM telemetry_paid WHERE account_id = {}) TO STDOUT"
_LONGEST_S = 3600


def _copied(made: Stand, account: int) -> float:
    """Seconds of the COPY."""
    with psycopg.connect(made.url) as conn, conn.cursor() as cursor:
        began = time.perf_counter()
        with cursor.copy(sql.SQL(_COPY).format(account)) as copy:
            for _ in copy:
                pass
        return time.perf_counter() - began


def _exported(made: Stand, account: int) -> dict[str, Any]:
    """One archive: its seconds, rows and bytes, as its record tells them."""
    export = asyncio.run(_request(made, account))
    deadline = time.monotonic() + _LONGEST_S
    while True:
        row = made.conn.execute(
            "SELECT status, extract(epoch FROM finished_at - started_at)::float8, rows, bytes"
            " FROM export WHERE id = %s",
            (export,),
        ).fetchone()
        if row is not None and row[0] == "ready":
            return {"seconds": row[1], "rows": row[2], "bytes": row[3]}
        if row is None or row[0] == "failed" or time.monotonic() > deadline:
            raise BenchmarkError(f"no archive: {row}\n{made.log_tail()}")
        time.sleep(0.1)


async def _request(made: Stand, account: int) -> int:
    plan = load_plans(PLANS)[history.PLAN]
    async with await db.connect(load(made.environ).database, "bench") as conn:
        found = await accounts.find(conn, str(account))
        return (await records.request(conn, found, plan, "ndjson", history.now())).id


def _peak_mb(pid: int) -> float:
    """The greatest RSS the process has had."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    if found is None:
        raise BenchmarkError("no VmHWM")
    return round(int(found[1]) / 1000, 1)


def run(form: Form) -> dict[str, Any]:
    """A warm-up of each, then each by turns."""
    chosen = _FULL if form.name == "full" else _QUICK
    with stand(10) as made:
        with psycopg.connect(made.url, options="-c synchronous_commit=off") as conn:
            history.make(conn, chosen, history.now())
            found = conn.execute("SELECT id FROM account WHERE email = %s", (history.EMAIL,))
            row = found.fetchone()
            count = conn.execute("SELECT count(*) FROM telemetry_paid").fetchone()
        if row is None or count is None:
            raise BenchmarkError("no history")
        worker = made.start_worker()
        idle = _peak_mb(worker)
        copies, archives = [_copied(made, row[0])], [_exported(made, row[0])]
        for _ in range(3):
            copies.append(_copied(made, row[0]))
            archives.append(_exported(made, row[0]))
        peak = _peak_mb(worker)
    copy_s = median(copies[1:])
    export_s = median(one["seconds"] for one in archives[1:])
    return {
        "readings": count[0], "copy_seconds": round(copy_s, 2), "seconds": round(export_s, 2),
        "copy_rows_per_second": round(count[0] / copy_s),
        "rows_per_second": round(count[0] / export_s),
        "share": round(copy_s / export_s, 3), "aim": AIM, "kept": copy_s / export_s >= AIM,
        "rows": archives[-1]["rows"], "bytes": archives[-1]["bytes"],
        "idle_mb": idle, "peak_mb": peak, "grown_mb": round(peak - idle, 1),
    }  # fmt: skip
