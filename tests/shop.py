"""A whole shop in one event loop: the API, a worker, and Stripe's fake on loopback."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg

from paqett import app, db, jobs
from paqett.app import Services
from paqett.billing import sync
from paqett.local.fake_stripe import objects
from paqett.local.fake_stripe.objects import Json
from paqett.local.fake_stripe.server import Server
from paqett.local.fake_stripe.webhooks import signed
from paqett.web.server import create_app
from paqett.worker import billing, process
from people import CHEAP_HASHES, Person, new_person
from support import with_url

SECRET_KEY = "sk_test_51paqettVerySecret"
WEBHOOK_SECRET = "whsec_paqettVerySecret"
LOOKUP_KEY = "paqett_paid"


class Shop:
    """`run` opens it; `ahead` moves every clock, Stripe's too."""

    services: Services
    client: httpx.AsyncClient

    def __init__(self, url: str, **environ: str) -> None:
        self.url, self.ahead = url, timedelta()
        self.server = Server(SECRET_KEY, clock=lambda: self.now().timestamp())
        self.fake = self.server.fake
        self.environ = {
            **CHEAP_HASHES,
            "PAQETT_STRIPE__SECRET_KEY": SECRET_KEY,
            "PAQETT_STRIPE__WEBHOOK_SECRET": WEBHOOK_SECRET,
            "PAQETT_STRIPE__API_BASE": self.server.url,
            "PAQETT_STRIPE__TIMEOUT_S": "5",
            **environ,
        }

    def now(self) -> datetime:
        return app.utc_now() + self.ahead

    def later(self, **time: float) -> None:
        self.ahead += timedelta(**time)

    def run(self, work: Callable[["Shop"], Coroutine[Any, Any, None]]) -> None:
        """Open everything, do `work`, close everything."""
        settings = with_url(self.url, **self.environ)

        async def run() -> None:
            async with (
                app.services(settings, "test", self.now) as services,
                AsyncExitStack() as self._opened,
            ):
                self.services, self._queue = services, None
                application = create_app(services)
                transport = httpx.ASGITransport(application)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as one:
                    self.client = one
                    await work(self)
                await application.state.door.close()

        asyncio.run(run())

    async def person(self, email: str = "ada@example.org") -> Person:
        """Registered, verified and signed in, on whatever plan that gives."""
        return await new_person(self.client, self.services.settings, email)

    async def work(self) -> None:
        """Work jobs until none is due."""
        if self._queue is None:
            self._queue = jobs.app(self.services.settings.database)
            await self._opened.enter_async_context(self._queue.open_async())
            process.register(self._queue, self.services)
        await process.work(self._queue, self.services, wait=False)

    async def deliver(self, event: Json, **more: Any) -> httpx.Response:
        """One webhook, signed now with the right secret unless told otherwise."""
        body, headers = signed(event, more.pop("secret", WEBHOOK_SECRET), more.pop("at", None))
        body = more.pop("body", body)
        headers |= more.pop("headers", {})
        return await self.client.post("/hooks/stripe", content=body, headers=headers)

    async def deliver_all(self) -> None:
        """Every event that was not delivered yet, and the work they ask for."""
        while self.fake.events:
            answer = await self.deliver(self.fake.events.pop(0))
            assert answer.status_code == 200, answer.text
        await self.work()

    async def reconcile(self) -> None:
        """The worker's round, and the jobs it writes."""
        await billing.reconcile(self.services)
        await self.work()

    async def sync(self, account_id: int) -> tuple[str, ...]:
        """What the job does."""
        assert self.services.stripe is not None
        async with db.transaction(self.services.pool) as conn:
            return await sync.sync(
                conn, self.services.stripe, account_id, self.services.plans,
                self.services.first_plan, self.now(),
            )  # fmt: skip

    def checkout_of(self, url: str) -> str:
        """The Checkout behind an address."""
        return url.rsplit("/", 1)[1]

    async def buy(self, person: Person) -> Json:
        """A Checkout, paid; returns Stripe's subscription. No webhook is delivered."""
        answer = await person.ask("POST", "/billing/checkout", json={"plan": "paid"})
        assert answer.status_code == 200, answer.text
        paid = self.fake.pay(self.checkout_of(answer.json()["url"]))
        assert paid is not None
        return paid

    async def plan(self, person: Person) -> dict[str, Any]:
        """GET /plan."""
        answer = await person.ask("GET", "/plan")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def subscriber(self, name: str) -> tuple[int, str]:
        """An account that has been at Checkout before: its number, and its customer's."""
        customer = objects.customer({"email": f"{name}@example.org"}, self.fake.now())
        self.fake.customers[customer["id"]] = customer
        account = self.rows(
            "INSERT INTO account (email, plan, tier, email_verified_at)"
            " VALUES (%s, 'free', 'free', now()) RETURNING id", customer["email"],
        )[0][0]  # fmt: skip
        self.rows(
            "INSERT INTO subscription (account_id, customer_key, customer_id, synced_at)"
            " VALUES (%s, %s, %s, %s)", account, name, customer["id"], self.now(),
        )  # fmt: skip
        return account, customer["id"]

    def subscribe(self, customer: str) -> str:
        """The customer pays a Checkout; Stripe's subscription."""
        (price,) = [p["id"] for p in self.fake.prices.values() if p["lookup_key"] == LOOKUP_KEY]
        asked = {"customer": customer, "success_url": "http://test"}
        session = objects.checkout(asked, self.server.url, self.fake.now())
        self.fake.checkouts[session["id"]] = session
        self.fake.orders[session["id"]] = {"price": price, "metadata": {}}
        paid = self.fake.pay(session["id"])
        assert paid is not None
        return str(paid["id"])

    def plan_of(self, account_id: int) -> str:
        """The plan the account is on."""
        return str(self.rows("SELECT plan FROM account WHERE id = %s", account_id)[0][0])

    def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database."""
        with psycopg.connect(self.url) as conn:
            found = conn.execute(text, values)
            return found.fetchall() if found.description else []

    def told(self, kind: str = "billing") -> list[str]:
        """The events people were told of, in order."""
        rows = self.rows("SELECT event FROM notice WHERE kind = %s ORDER BY id", kind)
        return [event for (event,) in rows]
