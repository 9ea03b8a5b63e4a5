"""Servers, a worker and people for the tests of mail."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from post import Office, Person, Post, Postman


@pytest.fixture
def office() -> Iterator[Callable[..., Office]]:
    """Opens servers; they close with the test."""
    open_ones: list[Office] = []

    def start(
        post: Post, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
    ) -> Office:
        made = Office(post, starttls, tls)
        made.start()
        open_ones.append(made)
        return made

    yield start
    for made in open_ones:
        made.stop()


@pytest.fixture
def postman(database_url: str, tmp_path: Path) -> Postman:
    return Postman(database_url, tmp_path)


@pytest.fixture
def person(postman: Postman) -> Callable[..., Person]:
    """Makes accounts: verified, in UTC, unless told otherwise."""

    def make(email: str = "ann@example.org", **columns: Any) -> Person:
        given = {"email_verified_at": postman.now, "plan": "own", "tier": "own", **columns}
        names = ["email", *given]
        rows = postman.rows(
            f"INSERT INTO account ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
            " RETURNING id",
            email, *given.values(),
        )  # fmt: skip
        return Person(rows[0][0], email)

    return make
