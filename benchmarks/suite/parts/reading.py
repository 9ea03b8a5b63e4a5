"""Reading a long history: HTTP by one client that keeps its connection, against SQL, by turns.

Then the same while ingest runs at half of its highest rate, and one series among few other readings
against the same among many.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np
from psycopg_pool import ConnectionPool

from paqett import db, keys
from paqett.settings import load
from suite import archive, history
from suite.asking import Ask, Asker, Client, Sql
from suite.form import Form
from suite.load import Load, drive
from suite.measured import SINGLE, sized
from suite.stand import Stand

_WARM_S = 5.0  # of a load, before anything is measured beside it
MOST, ADDED_MS, EXPORT, GROWTH, BUSY = 1.3, 1.0, 0.8, 1.2, 2.0  # the bars


class Place:
    """An API process on one of the databases, a client of it, and a pool."""

    def __init__(self, stand: Stand, database: str, end: datetime, days: int) -> None:
        url = stand.url_of(database)
        key, account, devices = asyncio.run(_visit(url))
        self.client = Client(stand.start_api(database), key)
        self.pool = ConnectionPool(url, min_size=1, max_size=2, open=True)
        self.sql = Sql(self.pool, key)
        self.asker = Asker(account, devices, end, days)

    def check(self, asks: Iterable[Ask]) -> None:
        """Both ways answer the same; and caches are warm."""
        for ask in asks:
            items = json.loads(self.client.ask(ask))["items"]
            rows = self.sql.ask(ask)
            assert len(items) == len(rows) == (ask.rows or len(rows)), (ask.name, len(items))
            values = sorted(float(item["value"]) for item in items)
            assert np.allclose(values, sorted(row[-1] for row in rows)), ask.name


async def _visit(url: str) -> tuple[str, int, list[str]]:
    """A new key, the account and its devices by name."""
    settings = load({"PAQETT_DATABASE__URL": url})
    async with await db.connect(settings.database, "bench") as conn:
        found = await conn.execute("SELECT id FROM account WHERE email = %s", (history.EMAIL,))
        row = await found.fetchone()
        assert row is not None
        await conn.execute("DELETE FROM api_key WHERE account_id = %s", (row["id"],))
        made = await keys.create(conn, row["id"], "bench", ["telemetry:read"], None, None)
        found = await conn.execute(
            "SELECT id FROM device WHERE account_id = %s ORDER BY thing_name", (row["id"],)
        )
        return made.key, row["id"], [device["id"] for device in await found.fetchall()]


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _by_turns(ways: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each way, each as often, for about so long and at least five times.

    The first of each is left out.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    end, names = time.monotonic() + seconds, list(ways)
    while time.monotonic() < end or len(times[names[0]]) < 5:
        for name in names:
            times[name].append(_ms(ways[name]))
        names.reverse()
    return times


def _quantiles(times: list[float]) -> dict[str, float]:
    return {
        "p50": round(median(times), 3), "p95": round(float(np.percentile(times, 95)), 3)
    }  # fmt: skip


def _compared(place: Place, ask: Ask, seconds: float) -> dict[str, Any]:
    place.client.reconnect()
    ways = {"http": lambda: place.client.ask(ask), "sql": lambda: place.sql.ask(ask)}
    times = _by_turns(ways, seconds)
    found = {name: _quantiles(taken) for name, taken in times.items()}
    allowed = MOST * found["sql"]["p50"] + ADDED_MS
    return {
        "name": ask.name, "times": len(times["sql"]), **found, "allowed": round(allowed, 3),
        "ratio": round(found["http"]["p50"] / found["sql"]["p50"], 2),
        "kept": found["http"]["p50"] <= allowed,
    }  # fmt: skip


def _exported(place: Place, ask: Ask, repeats: int) -> dict[str, Any]:
    client, sql = place.client, place.sql
    ways = {"http": lambda: client.export(ask.path), "copy": lambda: sql.export(ask)}
    times = _by_turns(ways, 0 if repeats == 1 else 60)
    rates = {name: round(1000 * ask.rows / median(taken)) for name, taken in times.items()}
    share = rates["http"] / rates["copy"]
    return {
        "name": ask.name, "times": len(times["http"]), **rates, "share": round(share, 3),
        "kept": share >= EXPORT,
    }  # fmt: skip


def _grown(big: Place, small: Place, seconds: float) -> list[dict[str, Any]]:
    """One series' requests in both databases, by turns."""
    figures = []
    pairs = zip(_of_one_series(big), _of_one_series(small), strict=True)
    for ask, same in pairs:
        for place in (small, big):
            place.client.reconnect()
        small.check([same])
        ways = {
            "http, few": lambda same=same: small.client.ask(same),
            "http, many": lambda ask=ask: big.client.ask(ask),
            "sql, few": lambda same=same: small.sql.ask(same),
            "sql, many": lambda ask=ask: big.sql.ask(ask),
        }
        times = _by_turns(ways, seconds)
        found = {name: round(median(taken), 3) for name, taken in times.items()}
        growth = found["http, many"] / found["http, few"]
        figures.append({
            "name": ask.name, "times": len(times["sql, few"]), **found,
            "growth": round(growth, 3), "kept": growth <= GROWTH,
        })  # fmt: skip
    return figures


def _of_one_series(place: Place) -> list[Ask]:
    return list(place.asker.one_series())


class _Ingest:
    """Half of the highest rate, for as long as it is entered."""

    def __init__(self, stand: Stand, form: Form) -> None:
        self._stand = stand
        stand.start()
        self.highest = drive(stand, sized(stand, SINGLE, form.seconds)).messages_per_second
        self.seen: dict[str, Any] = {}

    def during(self, work: Callable[[], Any], seconds: float) -> Any:
        """What `work` gives, done once the load has run for a while. Raises where it failed."""
        rate, begun, failed = self.highest / 2, Event(), []
        load = Load(SINGLE, round(rate * (seconds + _WARM_S)), rate=rate)

        def publish() -> None:
            try:
                self.seen = drive(self._stand, load, begun.set).report()
            except BaseException as error:
                failed.append(error)
                begun.set()

        thread = Thread(target=publish, daemon=True)
        thread.start()
        begun.wait()
        time.sleep(_WARM_S)
        done = work()
        in_time = thread.is_alive()
        thread.join()
        if failed or not in_time:
            raise RuntimeError(f"the load: {failed or 'it ended first'}")
        return done


def run(form: Form) -> dict[str, Any]:
    """All of it."""
    chosen = archive.FULL if form.name == "full" else archive.QUICK
    each = form.seconds / 1.5  # 8 s of each request, 2 s in the quick form
    with ExitStack() as cleaning:
        stand, end = cleaning.enter_context(archive.opened(chosen, form.devices))
        big = Place(stand, archive.BIG, end, chosen.big.days)
        small = Place(stand, archive.SMALL, end, chosen.small.days)
        for place in (big, small):
            cleaning.callback(place.pool.close)
        asks = [*big.asker.latest(), *big.asker.one_series(), big.asker.ten_series()]
        big.check(asks)
        figures = [_compared(big, ask, each) for ask in asks]
        export = _exported(big, big.asker.export(), form.repeats)
        growth = _grown(big, small, each)
        ingest = _Ingest(stand, form)
        busy = ingest.during(
            lambda: [_compared(big, ask, each) for ask in asks], len(asks) * (each + 2) + 10
        )
    slower = [
        {
            "name": quiet["name"], "quiet": quiet["http"], "busy": loaded["http"],
            "slower": round(loaded["http"]["p50"] / quiet["http"]["p50"], 2),
            "sql_slower": round(loaded["sql"]["p50"] / quiet["sql"]["p50"], 2),
            "kept": loaded["http"]["p50"] <= BUSY * quiet["http"]["p50"],
        }
        for quiet, loaded in zip(figures, busy, strict=True)
    ]  # fmt: skip
    return {
        "readings": chosen.big.readings, "few": chosen.small.readings, "figures": figures,
        "export": export, "growth": growth, "highest_messages_per_second": round(ingest.highest),
        "load": ingest.seen, "busy": slower,
    }  # fmt: skip
