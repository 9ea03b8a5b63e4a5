"""What goes on beside ingest in a soak: each work does its thing every so many seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from threading import Event

from paqett import accounts, db, devices, keys, retention
from paqett.app import utc_now
from paqett.db import Connection
from paqett.exports import records
from paqett.plans import load_plans
from paqett.settings import load
from suite.asking import Ask, Client
from suite.crowding import Crowd
from suite.meanwhile import Work
from suite.parts.moves import Mover
from suite.stand import PLANS, TABLE, BenchmarkError, Stand

MOVED = 20_000  # readings of the account that goes to and fro
WATCHED = 200  # devices with an alert rule that fires and resolves
_LONGEST_S = 300.0
_OLD = timedelta(days=400)  # beyond the tier's 365


class CarriedByWorker(Mover):
    """The worker moves the readings; it is only waited for."""

    async def _carry(self, conn: Connection) -> None:
        deadline = time.monotonic() + _LONGEST_S
        statement = "SELECT 1 FROM move WHERE account_id = %s"
        while await (await conn.execute(statement, (self.account,))).fetchone():
            if time.monotonic() > deadline:
                raise BenchmarkError("a move does not end")
            await asyncio.sleep(0.2)


class Works:
    """All of them; `done` counts."""

    def __init__(self, made: Stand, port: int, people: Crowd) -> None:
        self._made, self._port, self._people = made, port, people
        self.done: Counter[str] = Counter()
        self.storms: list[dict[str, float]] = []
        self._mover = CarriedByWorker(made, MOVED)
        self._make_rules()

    def _make_rules(self) -> None:
        watched = [device.id for device in self._made.devices[:WATCHED]]
        conn = self._made.conn
        conn.execute(
            "INSERT INTO alert_watch (account_id, version) SELECT DISTINCT account_id, 1"
            " FROM device ON CONFLICT DO NOTHING"
        )
        conn.execute(
            "INSERT INTO alert_rule (account_id, name, kind, device_id, metric, operator,"
            " threshold, clear, for_s, created_at, changed_at)"
            " SELECT account_id, 'soak', 'threshold', id, 'temperature', '>', 25, 22, 0, now(),"
            " now() FROM device WHERE id = ANY (%s)",
            (watched,),
        )

    def all(self, scale: float) -> list[Work]:
        """Works for `meanwhile`; `scale` is 1 in the long form, less makes them come sooner."""
        return [
            self._every("storms", 300 * scale, self._storm),
            self._every("moves", 60 * scale, self._move),
            self._every("exports", 60 * scale, self._export),
            self._every("retention runs", 60 * scale, self._retain),
            self._every("keys made, used and deleted", 1.0, self._churn),
            self._every("secrets rotated", 10.0, self._rotate),
        ]

    def _every(self, name: str, seconds: float, work: Callable[[], object]) -> Work:
        def go_on(stop: Event) -> None:
            while not stop.wait(seconds):
                work()
                self.done[name] += 1

        return go_on

    def _storm(self) -> None:
        self.storms.append(self._people.ask("storm"))

    def _move(self) -> None:
        over = Event()
        over.set()
        self._mover.move_until(over)
        self._mover.report()

    def _with_connection(self, work: Callable[[Connection], Awaitable[object]]) -> object:
        async def connected() -> object:
            settings = load(self._made.environ).database
            async with await db.connect(settings, "soak", autocommit=True) as conn:
                return await work(conn)

        return asyncio.run(connected())

    def _export(self) -> None:
        account_id = self._made.devices[0].account_id
        plan = load_plans(PLANS)["bench"]

        async def request(conn: Connection) -> object:
            async with conn.transaction():
                account = await accounts.find(conn, str(account_id))
                return (await records.request(conn, account, plan, "ndjson", utc_now())).id

        export = self._with_connection(request)
        deadline = time.monotonic() + _LONGEST_S
        with self._made.connect() as conn:
            while True:
                row = conn.execute("SELECT status FROM export WHERE id = %s", (export,)).fetchone()
                if row and row[0] == "ready":
                    return
                if row is None or row[0] == "failed" or time.monotonic() > deadline:
                    raise BenchmarkError(f"no archive: {row}\n{self._made.log_tail()}")
                time.sleep(0.2)

    def _retain(self) -> None:
        """A chunk of its own becomes too old, and goes."""

        async def apply(conn: Connection) -> object:
            await conn.execute(
                f"INSERT INTO {TABLE} (time, account_id, series_id, value)"
                " SELECT %s, account_id, id, 0 FROM series LIMIT 1000",
                (utc_now() - _OLD,),
            )
            async with conn.transaction():
                return await retention.apply(conn, "own")

        if not self._with_connection(apply):
            raise BenchmarkError("retention dropped nothing")

    def _churn(self) -> None:
        device = self._made.devices[0]

        async def make(conn: Connection) -> object:
            async with conn.transaction():
                scopes = ["telemetry:read"]
                return await keys.create(conn, device.account_id, "soak", scopes, None, None)

        made = self._with_connection(make)
        assert isinstance(made, keys.NewKey)
        client = Client(self._port, made.key)
        client.ask(Ask("latest", f"/api/v1/devices/{device.id}/latest", ""))
        client.reconnect()

        async def drop(conn: Connection) -> object:
            async with conn.transaction():
                return await keys.delete(conn, device.account_id, made.id)

        self._with_connection(drop)

    def _rotate(self) -> None:
        """Of the last device, which does nothing else: the broker reads its passwords again."""
        device = self._made.devices[-1]

        async def rotate(conn: Connection) -> object:
            async with conn.transaction():
                account = await accounts.find(conn, str(device.account_id))
                return await devices.rotate_secret(conn, account, device.id)

        self._with_connection(rotate)
