"""A random walk over everything that happens to an account's readings, beside a model of it.

The model is a dictionary. Whatever is done to the system is done to it in one line, and every
answer, over HTTP, as an export and in Grafana's view, is compared with it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import psycopg

from paqett import accounts, app, db, grafana, keys, moves, retention
from paqett.app import Services
from paqett.db import Connection
from paqett.grafana import Place
from paqett.plans import Plan, load_plans
from paqett.principals import SCOPES
from paqett.settings import Settings
from paqett.web.server import create_app
from people import CHEAP_HASHES
from support import Tenant, with_url

RETENTION = {"free": timedelta(days=7), "paid": timedelta(days=90), "own": timedelta(days=365)}
METRICS = ("m", "n", "words")
# hours a reading is beyond its tier's retention, in a chunk that is still there
PLANTED = {tier: int(kept / timedelta(hours=1)) + 30 for tier, kept in RETENTION.items()}
PLANTED.pop("own")
# no age is so near the end of a retention that the walk's own time would matter
HOURS = sorted(
    {
        *range(1, 166, 11),
        *range(172, 24 * 89, 97),
        *range(24 * 91, 24 * 360, 769),
        *PLANTED.values(),
    }
)
PLANS = """
[free]
tier = "free"
message_bytes = 262144
grafana = true
[paid]
tier = "paid"
message_bytes = 262144
grafana = true
[own]
tier = "own"
message_bytes = 262144
grafana = true
"""
Key = tuple[str, str, datetime]  # device, metric, time
Held = dict[Key, Any]


class Model(msgspec.Struct):
    """What an account should see: the first reading of each (device, metric, time)."""

    tier: str
    held: Held
    due: str | None = None

    def visible(self, now: datetime) -> Held:
        oldest = now - RETENTION[self.tier]
        return {key: value for key, value in self.held.items() if key[2] >= oldest}

    def take(self, key: Key, value: Any, now: datetime) -> bool:
        """Whether the reading is within the window."""
        if key[2] < now - RETENTION[self.tier]:
            return False
        self.held.setdefault(key, value)
        return True

    def flip(self, tier: str, now: datetime) -> None:
        """What is not readable at this moment, on either plan, never comes back."""
        self.held = self.visible(now)
        self.tier, self.due = tier, None
        self.held = self.visible(now)


class Walk:
    """`steps` of it, chosen by `seed`; `trail` tells what was done."""

    def __init__(self, url: str, folder: Path, tenant: Tenant, seed: int) -> None:
        self.url, self.tenant = url, tenant
        self.plans_file = folder / "plans.toml"
        self.plans_file.write_text(PLANS)
        self.settings: Settings = with_url(
            url, PAQETT_PAQETT__PLANS_FILE=str(self.plans_file), **CHEAP_HASHES
        )
        self.random = random.Random(seed)
        self.trail: list[str] = [f"seed {seed}"]
        self.start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        self.model = Model("free", {})
        self.done: Counter[str] = Counter()

    @property
    def plans(self) -> dict[str, Plan]:
        return load_plans(self.plans_file)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with app.services(self.settings, "test", app.utc_now) as services:
            self.services: Services = services
            application = create_app(services)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                self.client = client
                async with db.transaction(services.pool) as conn:
                    made = await keys.create(
                        conn, self.tenant.account_id, "walk", sorted(SCOPES), None, None
                    )
                    self.login = await self._login(conn)
                self.client.headers["Authorization"] = f"Bearer {made.key}"
                yield
            await application.state.door.close()
            await application.state.hub.close()

    async def _login(self, conn: Connection) -> grafana.Login:
        account = await accounts.find(conn, str(self.tenant.account_id))
        place = urlsplit(self.url)
        where = Place(place.hostname or "", place.port or 5432, "prefer")
        return await grafana.create(conn, account, self.plans["own"], where, 20)

    async def walk(self, steps: int) -> None:
        """Do it. Whatever goes wrong carries the trail."""
        works: list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]] = [
            (8, self.send), (3, self.change_plan), (2, self.grace_ends), (6, self.carry),
            (3, self.storm), (2, self.retain), (1, self.pack), (1, self.remove), (3, self.look),
            (1, self.plant),
        ]  # fmt: skip
        async with self.open():
            try:
                for _ in range(steps):
                    (work,) = self.random.choices(
                        [work for _, work in works], [weight for weight, _ in works]
                    )
                    self.done[work.__name__] += 1
                    self.trail.append(work.__name__)
                    await work()
                await self.settle()
                await self.look()
            except BaseException as error:
                error.add_note("the walk: " + " · ".join(self.trail[:1] + self.trail[-40:]))
                raise

    # --- what happens -----------------------------------------------------------------------

    async def send(self) -> None:
        """A message over HTTP: fresh, late, again, too old."""
        device, items, points = self._message()
        now = app.utc_now()
        answer = await self.client.post(f"/api/v1/devices/{device}/telemetry", json=items)
        fates = [self.model.take(key, value, now) for key, value in points]
        if not any(fates):
            assert (answer.status_code, answer.json()["code"]) == (422, "ts_too_old"), answer.text
            return
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["accepted"] + told["duplicates"] == sum(fates)
        assert {one["code"] for one in told["rejected"]} <= {"ts_too_old"}

    def _message(self) -> tuple[str, list[Any], list[tuple[Key, Any]]]:
        device, points, items = self.random.choice(self.tenant.devices), [], []
        for _ in range(self.random.choice((1, 3, 25))):
            time = self._time()
            metric = self.random.choice(METRICS)
            value: Any = self.random.randrange(1000)
            value = f"w{value}" if metric == "words" else float(value)
            items.append({"ts": time.isoformat(), metric: value})
            points.append(((device, metric, time), value))
        return device, items, points

    def _time(self) -> datetime:
        recent = self.random.random() < 0.6
        hours = self.random.choice([h for h in HOURS if h < 166] if recent else HOURS)
        return self.start - timedelta(hours=hours, minutes=self.random.choice((0, 7)))

    async def plant(self) -> None:
        """A reading that has expired and whose chunk is still there: it must never be seen."""
        hours = PLANTED.get(self.model.tier)
        if hours is None:
            return
        with psycopg.connect(self.url) as conn:
            conn.execute(
                f"INSERT INTO telemetry_{self.model.tier} SELECT %s, account_id, id, -1 FROM series"
                " WHERE account_id = %s AND kind = 'number' ON CONFLICT DO NOTHING",
                (self.start - timedelta(hours=hours), self.tenant.account_id),
            )

    async def change_plan(self) -> None:
        plan = self.plans[self.random.choice(("free", "paid", "own"))]
        now = app.utc_now()
        async with db.transaction(self.services.pool) as conn:
            due = await moves.set_plan(conn, self.tenant.account_id, plan, now)
        self.trail.append(plan.name)
        if due is not None:
            self.model.due = plan.tier
        else:
            await self._follow(plan.tier, now)

    async def _follow(self, tier: str, now: datetime) -> None:
        """The model flips when the system does: at once, or when an earlier move is done."""
        row = await self._account()
        if row["tier"] == tier:
            if self.model.tier != tier:
                self.model.flip(tier, now)
            self.model.due = None
        else:
            assert row["moving_from"] is not None
            self.model.due = tier

    async def grace_ends(self) -> None:
        """The 14 days are over; what follows then, the worker's round does."""
        await self._execute("UPDATE account SET tier_due_at = now() WHERE tier_due_at > now()")
        await self._due()

    async def _due(self) -> None:
        now = app.utc_now()
        async with db.transaction(self.services.pool) as conn:
            await moves.apply_due(conn, self.tenant.account_id, self.plans, now)
        if self.model.due is not None:
            row = await self._account()
            if row["tier"] == self.model.due:
                self.model.flip(self.model.due, now)

    async def carry(self) -> None:
        """Some slices of a move, any of them killed."""
        for _ in range(self.random.choice((1, 3, 30))):
            if not await self._slice(self.random.random() < 0.2):
                break
        else:
            return
        async with db.transaction(self.services.pool) as conn:
            await moves.close_move(conn, self.tenant.account_id)
        await self._due()

    async def _slice(self, killed: bool) -> bool:
        if not killed:
            async with db.transaction(self.services.pool) as conn:
                return await moves.move_slice(conn, self.tenant.account_id, app.utc_now())
        self.done["killed"] += 1
        conn = await db.connect(self.settings.database, "mover")
        killer = asyncio.create_task(self._kill(conn.info.backend_pid))
        try:
            await moves.move_slice(conn, self.tenant.account_id, app.utc_now())
            await conn.execute("SELECT pg_sleep(60)")
        except psycopg.OperationalError:
            pass
        finally:
            await killer
            await conn.close()
        return True

    async def _kill(self, pid: int) -> None:
        await asyncio.sleep(self.random.random() * 0.02)
        await self._execute("SELECT pg_terminate_backend(%s)", pid)

    async def retain(self) -> None:
        """What the worker and the policies do about every tier."""
        async with db.transaction(self.services.pool) as conn:
            for state in await retention.states(conn):
                await retention.apply(conn, state.name)
        await self._run_policies("policy_retention")

    async def pack(self) -> None:
        """Old chunks become columnstore, where the edition has it."""
        await self._run_policies("policy_compression")

    async def _run_policies(self, proc: str) -> None:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            found = await conn.execute(
                "SELECT job_id FROM timescaledb_information.jobs"
                " WHERE proc_name = %s AND scheduled ORDER BY job_id", (proc,),
            )  # fmt: skip
            for row in await found.fetchall():
                await conn.execute("CALL run_job(%s)", (row["job_id"],))
                self.done[proc] += 1

    async def remove(self) -> None:
        """A range of one device, over HTTP and by the job's slices."""
        device = self.random.choice(self.tenant.devices)
        first = self._time()
        last = first + timedelta(hours=self.random.choice((1, 30, 300)))
        span = {"from": first.isoformat(), "to": last.isoformat()}
        path = f"/api/v1/devices/{device}/telemetry"
        answer = await self.client.delete(path, params=span)
        assert answer.status_code in (200, 202, 204), answer.text
        self.model.held = {
            key: value
            for key, value in self.model.held.items()
            if not (key[0] == device and first <= key[2] < last)
        }

    async def settle(self) -> None:
        """Every move comes to its end."""
        for _ in range(500):
            if (await self._account())["moving_from"] is None:
                return
            more = True
            while more:
                more = await self._slice(killed=False)
            async with db.transaction(self.services.pool) as conn:
                await moves.close_move(conn, self.tenant.account_id)
            await self._due()
        raise AssertionError("a move never ends")

    # --- what is seen -----------------------------------------------------------------------

    async def look(self) -> None:
        """Everything, in every way, and nothing else."""
        wanted = self.model.visible(app.utc_now())
        assert await self._raw() == wanted
        assert await self._export() == wanted
        assert await asyncio.to_thread(self._grafana) == wanted
        newest: dict[tuple[str, str], tuple[datetime, Any]] = {}
        for (device, metric, time), value in wanted.items():
            if newest.get((device, metric), (time,))[0] <= time:
                newest[device, metric] = (time, value)
        assert await self._latest() == newest

    async def storm(self) -> None:
        """A mover, retention, a sender and readers at once: each sees what was or what is then."""
        before = self.model.visible(app.utc_now())
        sending = self.send()
        looks = [self._raw(), self._export(), asyncio.to_thread(self._grafana)]
        moving = [self._slice(killed=self.random.random() < 0.2) for _ in range(3)]
        *seen, _, _ = await asyncio.gather(
            *looks, self._in_turn(moving), asyncio.gather(sending, self.retain())
        )
        after = self.model.visible(app.utc_now())
        for one in seen:
            assert before.items() <= one.items()
            assert one.items() <= after.items()

    async def _in_turn(self, works: list[Coroutine[Any, Any, Any]]) -> None:
        for work in works:
            await work

    async def _raw(self) -> Held:
        seen: Held = {}
        span = {"devices": self.tenant.devices, "metrics": list(METRICS), "limit": 300}
        body: dict[str, Any] = {**span, "from": "-400d"}
        while True:
            answer = await self.client.post("/api/v1/telemetry/query", json=body)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            for item in page["items"]:
                key = (item["device"], item["metric"], datetime.fromisoformat(item["time"]))
                assert key not in seen, "doubled"
                seen[key] = item["value"]
            if page["next_cursor"] is None:
                return seen
            body = {**span, "cursor": page["next_cursor"]}

    async def _export(self) -> Held:
        seen: Held = {}
        body = {"devices": self.tenant.devices, "metrics": list(METRICS), "from": "-400d"}
        answer = await self.client.post(
            "/api/v1/telemetry/query", json=body, headers={"Accept": "application/x-ndjson"}
        )
        assert answer.status_code == 200, answer.text
        for line in answer.text.splitlines():
            item = msgspec.json.decode(line)
            key = (item["device"], item["metric"], datetime.fromisoformat(item["time"]))
            assert key not in seen, "doubled"
            seen[key] = item["value"]
        return seen

    def _grafana(self) -> Held:
        place = urlsplit(self.url)
        with psycopg.connect(
            host=place.hostname, port=place.port, dbname=place.path[1:],
            user=self.login.user, password=self.login.password,
        ) as conn:  # fmt: skip
            rows = conn.execute(
                "SELECT device, metric, time, value, text FROM grafana.telemetry"
            ).fetchall()
        seen = {
            (device, metric, time): text if value is None else value
            for device, metric, time, value, text in rows
        }
        assert len(seen) == len(rows), "doubled"
        return seen

    async def _latest(self) -> dict[tuple[str, str], tuple[datetime, Any]]:
        found = {}
        for device in self.tenant.devices:
            answer = await self.client.get(f"/api/v1/devices/{device}/latest")
            assert answer.status_code == 200, answer.text
            for item in answer.json()["items"]:
                found[device, item["metric"]] = (
                    datetime.fromisoformat(item["time"]), item["value"],
                )  # fmt: skip
        return found

    async def _account(self) -> dict[str, Any]:
        async with db.transaction(self.services.pool) as conn:
            row = await (
                await conn.execute(
                    "SELECT tier, moving_from, tier_due_at FROM account WHERE id = %s",
                    (self.tenant.account_id,),
                )
            ).fetchone()
        assert row is not None
        return row

    async def _execute(self, text: str, *values: Any) -> None:
        async with await db.connect(self.settings.database, "test", autocommit=True) as conn:
            await conn.execute(text, values or None)  # type: ignore[arg-type]
