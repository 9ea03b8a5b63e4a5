"""Readings moved from tier to tier: alone, and while ingest runs at half of its highest rate.

An account goes to and fro between two tiers that the load does not use. What that does to others is
seen in the same load with and without it: how soon a published reading is visible, and how long a
request takes, about the account that moves and about one that does not.
"""

import asyncio
import time
from contextlib import closing
from threading import Event
from typing import Any
from urllib.request import Request, urlopen

from paqett import db, keys, moves
from paqett.app import utc_now
from paqett.db import Connection
from paqett.plans import load_plans
from paqett.settings import load
from suite import scrape
from suite.form import Form
from suite.load import Load, drive
from suite.meanwhile import meanwhile
from suite.measured import SINGLE, sized
from suite.parts.latency import PROBES, Prober, milliseconds
from suite.stand import PLANS, Stand, stand

SERIES = 100
READINGS = {"full": 2_000_000, "quick": 100_000}
_THERE_AND_BACK = ("reading", "moving")  # plans of two tiers, neither of them the load's


class Mover:
    """An account with readings of the last six days, one after the other in all of its series."""

    def __init__(self, made: Stand, readings: int) -> None:
        self._made, self.readings = made, readings
        self._plans = load_plans(PLANS)
        self.moved, self.seconds, self.ways, self._at = 0, 0.0, 0, 0
        self._slices: list[float] = []
        self.account, self.device, self.key = asyncio.run(self._make())
        made.conn.execute(
            "INSERT INTO telemetry_free"
            " SELECT now() - interval '1 minute' - n * %s * interval '1 s', %s, s.id, n"
            " FROM generate_series(1, %s) AS n, series AS s WHERE s.account_id = %s",
            (6 * 86_400 * SERIES / readings, self.account, readings // SERIES, self.account),
        )

    async def _make(self) -> tuple[int, str, str]:
        async with await self._connect() as conn, conn.transaction():
            made = await conn.execute(
                "INSERT INTO account (email, plan, tier)"
                " VALUES ('mover@example.org', 'moving', 'free') RETURNING id"
            )
            account = (await made.fetchone() or {})["id"]
            await conn.execute(
                "INSERT INTO device (id, account_id, thing_name, verifier)"
                " VALUES ('mover', %s, 'm', '')",
                (account,),
            )
            await conn.execute(
                "INSERT INTO series (account_id, device_id, metric, kind)"
                " SELECT %s, 'mover', 'm' || n, 'number' FROM generate_series(1, %s) AS n",
                (account, SERIES),
            )
            made_key = await keys.create(conn, account, "bench", ["telemetry:read"], None, None)
        return account, "mover", made_key.key

    async def _connect(self) -> Connection:
        return await db.connect(load(self._made.environ).database, "bench", autocommit=True)

    def move_until(self, stop: Event) -> None:
        """There and back again, the whole way at least once."""
        asyncio.run(self._move_until(stop))

    async def _move_until(self, stop: Event) -> None:
        async with await self._connect() as conn:
            while not (stop.is_set() and self.ways):
                await self._flip(conn, _THERE_AND_BACK[self._at])
                before, began = self._left(), time.perf_counter()
                await self._carry(conn)
                self.seconds += time.perf_counter() - began
                self.moved += before - self._left()
                self.ways, self._at = self.ways + 1, 1 - self._at

    async def _flip(self, conn: Connection, plan: str) -> None:
        async with conn.transaction():
            await moves.set_plan(conn, self.account, self._plans[plan], utc_now(), tell=False)
            await conn.execute(
                "UPDATE account SET tier_due_at = now() WHERE id = %s AND tier_due_at IS NOT NULL",
                (self.account,),
            )
            await moves.apply_due(conn, self.account, self._plans, utc_now())

    async def _carry(self, conn: Connection) -> None:
        closed = False
        while not closed:
            more = True
            while more:
                began = time.perf_counter()
                async with conn.transaction():
                    more = await moves.move_slice(conn, self.account, utc_now())
                self._slices.append(time.perf_counter() - began)
            async with conn.transaction():
                closed = await moves.close_move(conn, self.account)

    def _left(self) -> int:
        """Readings in the tier they leave: what a way has carried is what is gone from it."""
        source = ("free", "paid")[self._at]
        with self._made.connect() as conn:
            row = conn.execute(
                f"SELECT count(*) FROM telemetry_{source} WHERE account_id = %s", (self.account,)
            ).fetchone()
        return int(row[0]) if row else 0

    def report(self) -> dict[str, Any]:
        """Of what was moved since the last report."""
        found = {
            "readings": self.moved, "ways": self.ways, "seconds": round(self.seconds, 2),
            "readings_per_second": round(self.moved / self.seconds) if self.seconds else 0,
            "slices": len(self._slices), "slice_ms": milliseconds(self._slices or [0.0]),
        }  # fmt: skip
        self.moved, self.seconds, self.ways, self._slices = 0, 0.0, 0, []
        return found


class Reader:
    """Asks again and again for an hour of one series, in turns of the account and of another."""

    def __init__(self, port: int, asked: dict[str, tuple[str, str]]) -> None:
        self._port, self._asked = port, asked
        self.times: dict[str, list[float]] = {name: [] for name in asked}

    def read_until(self, stop: Event) -> None:
        while not stop.wait(0.05):
            for name, (path, key) in self._asked.items():
                began = time.perf_counter()
                request = Request(
                    f"http://127.0.0.1:{self._port}{path}",
                    headers={"Authorization": f"Bearer {key}"},
                )
                with urlopen(request, timeout=30) as answer:
                    answer.read()
                self.times[name].append(time.perf_counter() - began)


def _asked(made: Stand, mover: Mover) -> dict[str, tuple[str, str]]:
    """An hour of one series: of the account that moves, and of one of the load's."""
    device = made.devices[0].id

    async def key() -> str:
        async with await db.connect(load(made.environ).database, "bench") as conn:
            found = await conn.execute("SELECT account_id FROM device WHERE id = %s", (device,))
            account = (await found.fetchone() or {})["account_id"]
            return (await keys.create(conn, account, "b", ["telemetry:read"], None, None)).key

    of = "/api/v1/devices/{}/telemetry?from=-2h&to=-1h"
    return {
        "the account that moves": (of.format(mover.device) + "&metrics=m1", mover.key),
        "another account": (of.format(device), asyncio.run(key())),
    }


def _loaded(
    made: Stand, mover: Mover, reader: Reader, form: Form, rate: float, *, moving: bool
) -> dict[str, Any]:
    """Half of the highest rate, with probes and requests among it, with the move or without."""
    seconds = form.probe_seconds
    works = [reader.read_until, *([mover.move_until] if moving else [])]
    load_ = Load(SINGLE, round(rate * (seconds + 3)), rate=rate, spare_devices=PROBES)
    before = scrape.fetch(made.metrics_url)
    with closing(Prober(made, seconds)) as prober, meanwhile(*works):
        done = drive(made, load_, prober.begin)
        seen = prober.account()
    flush = scrape.since(
        scrape.histogram(before, "paqett_ingest_flush_seconds"),
        scrape.histogram(scrape.fetch(made.metrics_url), "paqett_ingest_flush_seconds"),
    )
    requests = {name: milliseconds(times) for name, times in reader.times.items()}
    return {
        "messages_per_second": round(done.messages_per_second), "unseen": seen["unseen"],
        "visible_ms": milliseconds(seen["latencies"]),
        "flush_p99_ms": round(1000 * (scrape.quantile(flush, 0.99) or 0), 1),
        "request_ms": requests,
    }  # fmt: skip


def run(form: Form) -> dict[str, Any]:
    """The move alone, the load alone, and both."""
    with stand(form.devices) as made:
        mover = Mover(made, READINGS[form.name])
        port = made.start_api("bench")
        made.start()
        over = Event()
        over.set()
        mover.move_until(over)
        alone = mover.report()
        highest = drive(made, sized(made, SINGLE, form.seconds)).messages_per_second
        found = {}
        for name, moving in (("without", False), ("with", True)):
            reader = Reader(port, _asked(made, mover))
            found[name] = _loaded(made, mover, reader, form, highest / 2, moving=moving)
    return {
        "held": mover.readings, "series": SERIES, "alone": alone, "during": mover.report(),
        "highest_messages_per_second": round(highest), **found,
    }  # fmt: skip
