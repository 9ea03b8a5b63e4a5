"""Guessing passwords, and using up the machine with them: held up, and its owner is not.

What hashing costs is counted, not timed: the parameters here are cheap so that the tests are quick.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import psutil
import psycopg
import pytest

from paqett import app
from paqett.web.server import create_app
from people import PASSWORD, Person, mailed, new_person, register

EMAIL = "ada@example.org"
GUESSES = pytest.mark.parametrize("guesses", [2_000, pytest.param(10_000, marks=pytest.mark.prove)])


class Town:
    """Browsers at many addresses, all of one application."""

    def __init__(self, api) -> None:
        self.api = api

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Town"]:
        async with app.services(self.api.settings, "test", self.api.now) as services:
            self.hasher, self.application = services.hasher, create_app(services)
            yield self
            await self.application.state.door.close()

    def browser(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.application, client=(address, 40_000))
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    async def sign_in(self, address: str, email: str = EMAIL, password: str = PASSWORD) -> int:
        async with self.browser(address) as client:
            return (await Person(client, email, password).sign_in()).status_code


@pytest.fixture
def town(api, monkeypatch) -> Town:
    # refused sign-ins wait, so that time tells nothing: here there are ten thousand of them
    monkeypatch.setattr("paqett.web.sign_in._REFUSED_AFTER_S", 0.0)
    return Town(api)


async def settle(town: Town, address: str) -> None:
    """The owner registers and signs in from there."""
    async with town.browser(address) as client:
        await new_person(client, town.api.settings, EMAIL)


async def guess(town: Town, addresses: list[str], guesses: int, every_s: float) -> Counter[int]:
    """Try so many passwords, from each address in turn; how often each status was answered."""
    found: Counter[int] = Counter()
    browsers = [town.browser(address) for address in addresses]
    for number in range(guesses):
        town.api.later(timedelta(seconds=every_s))
        body = {"email": EMAIL, "password": f"guess number {number}"}
        answer = await browsers[number % len(browsers)].post("/api/v1/auth/login", json=body)
        found[answer.status_code] += 1
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
    for browser in browsers:
        await browser.aclose()
    return found


@GUESSES
def test_thousands_of_passwords_from_one_address_are_ten_tries(town, guesses) -> None:
    async def work() -> None:
        async with town.open():
            await settle(town, "198.51.100.1")
            before = town.hasher.hashed
            found = await guess(town, ["203.0.113.7"], guesses, 500 / guesses)
            # all within 500 seconds: one window of the account at this address
            assert found == {401: 10, 429: guesses - 10}
            assert town.hasher.hashed - before == 10
            # its owner, from where they are known and from somewhere new
            assert await town.sign_in("198.51.100.1") == 200
            assert await town.sign_in("192.0.2.77") == 200
            # whoever guesses does not get in by the right one either
            assert await town.sign_in("203.0.113.7") == 429

    asyncio.run(work())


def test_one_address_does_not_go_through_the_accounts_either(town) -> None:
    """Credential stuffing: another account with each try."""

    async def work() -> None:
        async with town.open():
            found: Counter[int] = Counter()
            for number in range(300):
                town.api.later(timedelta(seconds=1))
                found[await town.sign_in("203.0.113.7", f"p{number}@example.org")] += 1
            assert found == {401: 30, 429: 270}
            assert town.hasher.hashed == 30

    asyncio.run(work())


@GUESSES
def test_thousands_of_passwords_from_many_addresses_are_a_hundred_tries_an_hour(
    town, guesses
) -> None:
    async def work() -> None:
        async with town.open():
            await settle(town, "198.51.100.1")
            before = town.hasher.hashed
            addresses = [f"203.0.{number // 200}.{number % 200 + 1}" for number in range(1000)]
            found = await guess(town, addresses, guesses, 3000 / guesses)  # in 50 minutes
            # the owner's own first sign-in, from an address not known then, was the hundredth
            assert found == {401: 99, 429: guesses - 99}
            assert town.hasher.hashed - before == 99
            # the owner is not kept out of where they have signed in before
            assert await town.sign_in("198.51.100.1") == 200
            # nor from somewhere new for good: a mail lets them in at once
            assert await town.sign_in("192.0.2.77") == 429
            token = await mailed(town.api.settings, EMAIL, "reset_password", now=town.api.now())
            async with town.browser("192.0.2.77") as client:
                body = {"token": token, "password": "another fine one"}
                answer = await client.post("/api/v1/auth/password-reset/confirm", json=body)
                assert answer.status_code == 200
            assert await town.sign_in("192.0.2.77", password="another fine one") == 200

    asyncio.run(work())


def test_an_ipv6_network_is_one_address(town) -> None:
    async def work() -> None:
        async with town.open():
            addresses = [f"2001:db8:1:2::{number:x}" for number in range(1, 200)]
            found = await guess(town, addresses, 400, 0.5)
            assert found == {401: 10, 429: 390}

    asyncio.run(work())


def test_two_hundred_sign_ins_at_once_leave_the_api_answering(make_api, monkeypatch) -> None:
    """With the real parameters: at most two hashes at a time, a short queue, 503 for the rest."""
    real = {
        "PAQETT_AUTH__ARGON2_TIME_COST": "1",
        "PAQETT_AUTH__ARGON2_MEMORY_KIB": "65536",
        "PAQETT_AUTH__ARGON2_PARALLELISM": "1",
    }
    town = Town(make_api(**real))

    async def work() -> None:
        async with town.open():
            memory = psutil.Process().memory_info().rss
            most, answered, done = memory, 0, asyncio.Event()

            async def watch() -> None:
                nonlocal most, answered
                async with town.browser("198.51.100.1") as client:
                    while not done.is_set():
                        assert (await client.get("/healthz")).status_code == 200
                        answered += 1
                        most = max(most, psutil.Process().memory_info().rss)
                        await asyncio.sleep(0.01)

            watching = asyncio.create_task(watch())

            async def one(number: int) -> httpx.Response:
                async with town.browser(f"203.0.113.{number + 1}") as client:
                    body = {"email": f"p{number}@example.org", "password": PASSWORD}
                    return await client.post("/api/v1/auth/login", json=body)

            answers = await asyncio.gather(*(one(number) for number in range(200)))
            done.set()
            await watching
            found = Counter(answer.status_code for answer in answers)
            assert set(found) == {401, 503}
            assert found[401] == town.hasher.hashed
            refused = [answer for answer in answers if answer.status_code == 503]
            assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
            assert answered >= 5
            # two hashes of 64 MiB, and what 200 requests need: not 200 hashes
            assert most - memory < 4 * 64 * 1024 * 1024

    asyncio.run(work())


def test_known_and_unknown_addresses_cost_the_same_hashes_and_leave_the_same_rows(
    api, database_url
) -> None:
    def rows() -> dict[str, int]:
        with psycopg.connect(database_url) as conn:
            return {
                table: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in (
                    "procrastinate_jobs",
                    "session",
                    "notice",
                    "account_token",
                )
            }

    async def cost(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> tuple:
        hashed, before = api.hasher.hashed, rows()
        answer = await client.post(f"/api/v1/auth/{path}", json=body)
        made = {table: count - before[table] for table, count in rows().items()}
        return answer.status_code, answer.text, api.hasher.hashed - hashed, made

    async def work(client: httpx.AsyncClient) -> None:
        await new_person(client, api.settings, "known@example.org")
        await register(client, "unverified@example.org")
        client.cookies.clear()
        for path, body in (
            ("login", {"password": "the wrong one"}),
            ("register", {"password": PASSWORD, "age_confirmed": True}),
            ("password-reset", {}),
        ):
            found = [
                await cost(client, path, {"email": f"{name}@example.org", **body})
                for name in ("known", "unverified", "unknown")
            ]
            assert found[0] == found[1] == found[2], path
            assert found[0][2] == (0 if path == "password-reset" else 1)

    api.run(work)
