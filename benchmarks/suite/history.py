"""A history of readings for one account: 1,000 devices of 10 metrics each, in the tier `paid`.

A few series have a reading every 10 s, the others one in a longer step. It is copied day by day,
each sorted by (series, time), and lies as it would after one COPY a day: a series' readings of a
day are neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
from numpy.typing import NDArray

from paqett.mqtt.credentials import new_device_id, new_secret, verifier
from paqett.readings.rows import HEADER, TRAILER, pack_numbers

TABLE = "telemetry_paid"
PLAN, TIER, EMAIL = "reading", "paid", "reading@paqett.invalid"
DEVICES, METRICS = 1000, 10
STEP_S = 10
DAY_S = 86_400
_PIECE = 200_000  # rows given to COPY at a time
_COPY = f"COPY {TABLE} (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY)"

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """`fast` series every 10 s and the others every `slow_step_s`, for `days` that end at `end`."""

    days: int
    fast: int
    slow_step_s: int

    @property
    def readings(self) -> int:
        """How many there are, to a few."""
        seconds = self.days * DAY_S
        slow = DEVICES * METRICS - self.fast
        return self.fast * seconds // STEP_S + slow * seconds // self.slow_step_s


FULL = History(90, 100, 3600)
FULL_SMALL = History(90, 1, 77_760)  # the same series, and 1 million readings of the others
QUICK = History(12, 19, 43_200)
QUICK_SMALL = History(12, 1, DAY_S)


def device_name(number: int) -> str:
    """What the device is called; its id is random."""
    return f"device-{number:04}"


def make(conn: psycopg.Connection, history: History, end: datetime) -> None:
    """Account, devices, series and readings; each day is committed by itself."""
    account = _make_account(conn)
    fast, slow = _make_series(conn, account, history.fast)
    conn.commit()
    for day in range(history.days):
        start = end - timedelta(days=history.days - day)
        series, times = _day(history, fast, slow, round(start.timestamp()))
        _copy(conn, account, series, times)
        conn.commit()
    conn.autocommit = True
    conn.execute(f"VACUUM (FREEZE, ANALYZE) {TABLE}")
    conn.execute("VACUUM ANALYZE series, device, account")
    conn.execute("CHECKPOINT")


def _make_account(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "INSERT INTO account (email, plan, tier) VALUES (%s, %s, %s) RETURNING id",
        (EMAIL, PLAN, TIER),
    ).fetchone()
    assert row is not None
    secret = verifier(new_secret())  # nobody signs in with it
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO device (id, account_id, thing_name, verifier) VALUES (%s, %s, %s, %s)",
            [(new_device_id(), row[0], device_name(n), secret) for n in range(DEVICES)],
        )
    return int(row[0])


def _make_series(conn: psycopg.Connection, account: int, fast: int) -> tuple[Ints, Ints]:
    """The ids of the fast series and of the slow ones.

    Fast are all metrics of the first device, then the first of each of the next nine devices, then
    the others of those.
    """
    found = conn.execute(
        "INSERT INTO series (account_id, device_id, metric, kind, unit)"
        " SELECT account_id, device.id, 'm' || n, 'number', '°C'"
        " FROM device, generate_series(0, %s) AS n WHERE account_id = %s"
        " ORDER BY thing_name, n RETURNING id",
        (METRICS - 1, account),
    ).fetchall()
    ids = [row[0] for row in found]
    first = [*range(METRICS), *range(METRICS, 10 * METRICS, METRICS)]
    order = [*first, *(n for n in range(len(ids)) if n not in set(first))]
    chosen = [ids[n] for n in order]
    return np.array(chosen[:fast], np.int64), np.array(chosen[fast:], np.int64)


def _day(history: History, fast: Ints, slow: Ints, start_s: int) -> tuple[Ints, Ints]:
    """Series and times (µs since 1970) of one day, in the order of both."""
    ticks = np.arange(start_s, start_s + DAY_S, STEP_S, dtype=np.int64) * 1_000_000
    parts = [(np.repeat(fast, len(ticks)), np.tile(ticks, len(fast)))]
    step = history.slow_step_s
    for lag in range(0, step, 60):  # by the minute at which a series speaks
        some = slow[slow * 7919 % step // 60 * 60 == lag]
        first = start_s + (lag - start_s) % step
        ticks = np.arange(first, start_s + DAY_S, step, dtype=np.int64) * 1_000_000
        parts.append((np.repeat(some, len(ticks)), np.tile(ticks, len(some))))
    # each series a little later than the other
    series = np.concatenate([part[0] for part in parts])
    times = np.concatenate([part[1] for part in parts]) + series % 9973 * 1000
    order = np.lexsort((times, series))
    return series[order], times[order]


def _copy(conn: psycopg.Connection, account: int, series: Ints, times: Ints) -> None:
    random = np.random.default_rng(int(times[0] // 1_000_000))
    values = 20 + 5 * np.sin(times / 1e6 / 13_751 + series) + random.normal(0, 0.3, len(series))
    with conn.cursor() as cursor, cursor.copy(_COPY) as target:
        target.write(HEADER)
        for piece in _pieces(len(series)):
            accounts = np.full(len(series[piece]), account, np.int64)
            target.write(
                pack_numbers(series[piece], times[piece], accounts, values[piece].round(2))
            )
        target.write(TRAILER)


def _pieces(length: int) -> Iterator[slice]:
    return (slice(at, at + _PIECE) for at in range(0, length, _PIECE))


def now() -> datetime:
    """The end of a history made now: the last full hour."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
