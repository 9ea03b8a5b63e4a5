"""Passwords: argon2id, off the event loop, a few at a time; bcrypt is read, never written.

The parameters are settings (RFC 9106 §4, its second choice, by default); a hash made with others is
made anew when its owner next signs in, and so is a bcrypt hash that came from an older system.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from typing import TypeVar

import argon2
import bcrypt
import msgspec
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from paqett.errors import Invalid, Unavailable
from paqett.settings import Auth

SHORTEST, LONGEST = 8, 128  # NIST SP 800-63B §3.1.1.2, in characters
_T = TypeVar("_T")
_BCRYPT = ("$2a$", "$2b$", "$2y$")
_BCRYPT_BYTES = 72  # what bcrypt reads of a password


class CommonPassword(Invalid):
    """One that everybody who guesses tries first."""

    code = "password_common"
    title = "Password too common"


class Verified(msgspec.Struct, frozen=True):
    """Whether the password was right, and whether its hash is to be made anew."""

    right: bool
    outdated: bool


def check(password: str, *about: str | None) -> None:
    """Raises `Invalid` for a length out of bounds, `CommonPassword` for one easily guessed.

    `about` are words a guesser knows: the address, the names.
    """
    plain = _normal(password)
    if not SHORTEST <= len(plain) <= LONGEST:
        raise Invalid(f"A password has {SHORTEST} to {LONGEST} characters.", field="password")
    words = {word.lower() for text in about if text for word in (text, text.partition("@")[0])}
    if plain.lower() in words or plain.lower() in _commonest():
        raise CommonPassword(
            "This password is among those tried first by anybody who guesses; choose another.",
            field="password",
        )


@cache
def _commonest() -> frozenset[str]:
    """The 30,000 commonest of zxcvbn's list, and the product's own name."""
    return frozenset(FREQUENCY_LISTS["passwords"]) | {"paqett", "paqett123", "paqett1234"}


def _normal(password: str) -> str:
    """The same password however its characters were typed (NIST SP 800-63B §3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


async def hash_once(settings: Auth, password: str) -> str:
    """The argon2id hash to store, where no `Hasher` stays open."""
    hasher = Hasher(settings)
    try:
        return await hasher.hash(password)
    finally:
        hasher.close()


class Hasher:
    """Hashes in threads of its own: as many at a time as the settings say, and a short queue.

    `hashed` counts every hash computed, for whomever.
    """

    def __init__(self, settings: Auth) -> None:
        self._argon2 = argon2.PasswordHasher(
            settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism
        )
        self._threads = ThreadPoolExecutor(settings.hash_concurrency, "password")
        self._room = settings.hash_concurrency + settings.hash_queue
        self.hashed = 0

    async def hash(self, password: str) -> str:
        """The argon2id hash to store. Raises `Unavailable` while too many others wait."""
        return str(await self._apart(lambda: self._argon2.hash(_normal(password))))

    async def verify(self, stored: str | None, password: str) -> Verified:
        """Compare with a stored hash; without one the same work is done for nothing.

        Raises `Unavailable` while too many others wait.
        """
        return await self._apart(lambda: self._verify(stored, password))

    async def _apart(self, work: Callable[[], _T]) -> _T:
        if self._room == 0:
            raise Unavailable("Too many people are signing in just now; try again.", retry_after=3)
        self._room -= 1
        try:
            self.hashed += 1
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._room += 1

    def _verify(self, stored: str | None, password: str) -> Verified:
        if stored is not None and stored.startswith(_BCRYPT):
            given = password.encode()[:_BCRYPT_BYTES]
            return Verified(bcrypt.checkpw(given, stored.encode()), outdated=True)
        try:
            self._argon2.verify(stored or self._nobodys, _normal(password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return Verified(right=False, outdated=False)
        return Verified(
            stored is not None, stored is not None and self._argon2.check_needs_rehash(stored)
        )

    @cached_property
    def _nobodys(self) -> str:
        return self._argon2.hash("nobody's")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
