"""Whether time tells if an address has an account: known against unknown, by turns.

Real hashing parameters, the API in this process, one request at a time, each from an address of its
own and in a quarter of an hour of its own, so that no limit is in the way.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from paqett import app, db, log
from paqett.settings import Settings, load
from paqett.web.server import create_app
from suite.form import Form
from suite.stand import stand

PASSWORD = "correct horse battery"
KNOWN, UNKNOWN = "known", "unknown"
_A_SECOND = 8  # requests of each kind for each second of the form
_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "sign in": ("login", {"password": "not the right one"}),
    "register": ("register", {"password": PASSWORD, "age_confirmed": True}),
    "reset a password": ("password-reset", {}),
}


class Api:
    """The application, and a clock that goes on a quarter of an hour with each request."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._addresses = count(1)

    def now(self) -> datetime:
        return app.utc_now() + self.ahead

    @asynccontextmanager
    async def open(self, settings: Settings) -> AsyncIterator[None]:
        async with app.services(settings, "benchmark", self.now) as services:
            self._app = create_app(services)
            yield
            await self._app.state.door.close()

    async def ask(self, path: str, body: dict[str, Any], status: int) -> float:
        """Milliseconds until the answer."""
        self.ahead += timedelta(minutes=15)
        number = next(self._addresses)
        transport = httpx.ASGITransport(self._app, client=(f"10.0.{number >> 8}.{number & 255}", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            began = perf_counter()
            answer = await client.post(f"/api/v1/auth/{path}", json=body)
            took = perf_counter() - began
        assert answer.status_code == status, answer.text
        return 1000 * took


async def _make_known(settings: Settings, api: Api, email: str) -> None:
    body = {"email": email, "password": PASSWORD, "age_confirmed": True}
    await api.ask("register", body, 202)
    async with await db.connect(settings.database, "benchmark", autocommit=True) as conn:
        await conn.execute("UPDATE account SET email_verified_at = now()")


async def _measure(url: str, samples: int) -> dict[str, dict[str, list[float]]]:
    settings = load({"PAQETT_DATABASE__URL": url})
    api, numbers = Api(), count()
    times: dict[str, dict[str, list[float]]] = {}
    async with api.open(settings):
        await _make_known(settings, api, "known@example.org")
        for name, (path, more) in _CALLS.items():
            times[name] = {KNOWN: [], UNKNOWN: []}
            for number in range(2 * (samples + 2)):
                kind = (KNOWN, UNKNOWN)[number % 2]
                email = f"{kind if kind == KNOWN else f'n{next(numbers)}'}@example.org"
                took = await api.ask(
                    path, {"email": email, **more}, 401 if path == "login" else 202
                )
                if number >= 4:  # the first of each fill caches
                    times[name][kind].append(round(took, 2))
    return times


def _apart(one: list[float], other: list[float]) -> float:
    """The greatest distance of the two distributions (Kolmogorov-Smirnov), 0 to 1."""
    at = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def run(form: Form) -> dict[str, Any]:
    """Each call with an address that has an account and one that has none."""
    samples = round(form.seconds * _A_SECOND)
    log.configure("warning", "console", "benchmark")
    with stand(1) as made:
        times = asyncio.run(_measure(made.url, samples))
    figures = []
    for name, kinds in times.items():
        quantiles = {
            kind: {f"p{q}": round(float(np.percentile(taken, q)), 1) for q in (5, 50, 95)}
            for kind, taken in kinds.items()
        }
        chance = 1.36 * (2 / samples) ** 0.5  # what 5 % of equal distributions exceed
        figures.append(
            {
                "name": name, "samples": samples, **quantiles, "ms": kinds,
                "apart": round(_apart(kinds[KNOWN], kinds[UNKNOWN]), 3),
                "apart_by_chance": round(chance, 3),
            }
        )  # fmt: skip
    return {"figures": figures}
