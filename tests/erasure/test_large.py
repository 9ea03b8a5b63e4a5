"""A large account is erased in bounded transactions while others go on sending."""

import asyncio
import time
from typing import Any

import pytest

import belongings
from belongings import Wanted
from leaving import Leaving
from paqett.erasure import steps, sweep

_SERIES = 40
_DAYS = 30


def fill(leaving: Leaving, account: int, rows: int) -> list[int]:
    """`rows` readings of 40 series over 30 days."""
    leaving.rows(
        "INSERT INTO device (id, account_id, thing_name, verifier) VALUES ('large', %s, 'l', 'v')",
        account,
    )
    found = leaving.rows(
        "INSERT INTO series (account_id, device_id, metric, kind)"
        " SELECT %s, 'large', 'm' || n, 'number' FROM generate_series(1, %s) AS n RETURNING id",
        account, _SERIES,
    )  # fmt: skip
    series = [row[0] for row in found]
    apart_s = _DAYS * 86_400 * _SERIES / rows
    for number in series:
        leaving.rows(
            "INSERT INTO telemetry_own SELECT now() - n * make_interval(secs => %s), %s, %s, n"
            " FROM generate_series(1, %s) AS n", apart_s, account, number, rows // _SERIES,
        )  # fmt: skip
    return series


def hold(leaving: Leaving, rows: int, record: Any) -> None:
    """Erase so many readings beside flushes of another account, and look at both."""
    gone = belongings.make(leaving.url, Wanted(devices=1), 1, leaving.folder)
    kept = belongings.make(leaving.url, Wanted(devices=1), 2, leaving.folder)
    fill(leaving, gone.account, rows)
    leaving.rows("ANALYZE")
    most, flushes, sent = 0, [], 0
    note = steps.note_erased

    async def noting(conn: Any, work: Any, erased: dict[str, int], reached: Any = None) -> None:
        nonlocal most
        most = max(most, sum(erased.values()))
        await note(conn, work, erased, reached)

    async def work(leaving: Leaving) -> None:
        nonlocal sent
        directory = leaving.directory()
        erasing = asyncio.create_task(leaving.erase(gone.account))
        while not erasing.done():
            began = time.monotonic()
            outcome = await leaving.send(
                kept.devices[0], *[{"n": sent + n} for n in range(200)], directory=directory
            )
            flushes.append(time.monotonic() - began)
            sent += outcome.stored
            await asyncio.sleep(0.02)
        await erasing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "note_erased", noting)
        began = time.monotonic()
        leaving.run(work)
        took = time.monotonic() - began
    assert belongings.traces(leaving.url, gone, leaving.folder) == []
    assert most <= sweep.MOST_ROWS
    counted = leaving.rows("SELECT erased FROM erasure WHERE finished_at IS NOT NULL")[0][0]
    assert counted["telemetry_own"] >= rows // _SERIES * _SERIES
    query = "SELECT count(*) FROM telemetry_own JOIN series ON series.id = series_id"
    assert leaving.rows(f"{query} WHERE device_id = %s AND metric = 'n'", kept.devices[0]) == [
        (sent,)
    ]
    flushes.sort()
    record("rows", rows)
    record("rows_per_s", round(rows / took))
    record("flush_median_ms", round(flushes[len(flushes) // 2] * 1000))
    record("flush_p99_ms", round(flushes[int(len(flushes) * 0.99)] * 1000))
    record("flush_max_ms", round(flushes[-1] * 1000))


def test_a_large_account_goes_in_bounded_steps(leaving: Leaving, record_property: Any) -> None:
    hold(leaving, 60_000, record_property)


@pytest.mark.prove
def test_ten_million_readings_go_in_bounded_steps(leaving: Leaving, record_property: Any) -> None:
    hold(leaving, 10_000_000, record_property)
