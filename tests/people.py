"""People who register and sign in over HTTP, in tests."""

from datetime import datetime
from typing import Any

import httpx
import msgspec

from paqett import db, tokens
from paqett.app import utc_now
from paqett.settings import Settings

PASSWORD = "correct horse battery"
# cheap, so that tests are quick; tests of the real parameters set them
CHEAP_HASHES = {
    "PAQETT_AUTH__ARGON2_TIME_COST": "1",
    "PAQETT_AUTH__ARGON2_MEMORY_KIB": "8",
    "PAQETT_AUTH__ARGON2_PARALLELISM": "1",
}


class Person(msgspec.Struct):
    """A browser of somebody's: its cookies are the client's, `csrf` is what writes carry."""

    client: httpx.AsyncClient
    email: str
    password: str = PASSWORD
    csrf: str = ""

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request with the session's cookie, and the token where it writes."""
        headers = {"X-CSRF-Token": self.csrf, **more.pop("headers", {})}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **more)

    async def sign_in(self, **more: Any) -> httpx.Response:
        """By password; keeps the token for writes."""
        body = {"email": self.email, "password": self.password}
        answer = await self.client.post("/api/v1/auth/login", json=body, **more)
        if answer.status_code == 200:
            self.csrf = answer.json()["csrf_token"]
        return answer


async def mailed(
    settings: Settings, email: str, purpose: Any, *, to: str | None = None,
    now: datetime | None = None,
) -> str:  # fmt: skip
    """The token a mail to the account `email` would carry: the worker makes it when it writes."""
    async with await db.connect(settings.database, "test", autocommit=True) as conn:
        row = await (
            await conn.execute("SELECT id FROM account WHERE lower(email) = lower(%s)", (email,))
        ).fetchone()
        assert row is not None
        if purpose == "code":
            return await tokens.issue_code(conn, row["id"], email, now or utc_now(), 600)
        return await tokens.issue(conn, row["id"], purpose, to or email, now or utc_now(), 600)


async def register(client: httpx.AsyncClient, email: str, **more: Any) -> httpx.Response:
    """Ask for an account."""
    body = {"email": email, "password": PASSWORD, "age_confirmed": True, **more}
    return await client.post("/api/v1/auth/register", json=body)


async def new_person(
    client: httpx.AsyncClient, settings: Settings, email: str = "ada@example.org", **more: Any
) -> Person:
    """Registered, verified and signed in."""
    assert (await register(client, email, **more)).status_code == 202
    token = await mailed(settings, email, "verify_email")
    answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
    assert answer.status_code == 200, answer.text
    person = Person(client, email, more.get("password", PASSWORD))
    assert (await person.sign_in()).status_code == 200
    return person
