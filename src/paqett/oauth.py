"""Signing in through somebody who knows the person: OAuth 2.0's code flow with PKCE.

RFC 6749 §4.1, RFC 7636, RFC 9700 §2.1: a state that one browser holds and that works once, a
challenge that binds the code to whoever began, and nothing but the provider's own number of the
person to know them again. A further provider is an entry in `providers` and a function that asks
who the person is.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from paqett.errors import Problem
from paqett.settings import Settings

_TIMEOUT_S = 10.0


class Person(msgspec.Struct, frozen=True):
    """Whom a provider vouches for; `email` is the verified primary address, if there is one."""

    subject: str
    email: str | None
    first_name: str | None


class Provider(msgspec.Struct, frozen=True):
    """Where to send the browser, where to trade its code, and how to ask who it was."""

    name: str
    client_id: str
    client_secret: str
    authorize_url: str
    token_url: str
    scope: str
    who: Callable[[httpx.AsyncClient, str], Awaitable[Person]]


class ProviderFailed(Problem):
    """The provider refused the code or did not answer as it should."""

    status = 502
    code = "sign_in_failed"
    title = "Sign-in failed"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} did not confirm who you are; start again.")


def providers(settings: Settings) -> dict[str, Provider]:
    """Those that the settings name an OAuth app for."""
    own = settings.github
    if not own.client_id:
        return {}

    async def who(client: httpx.AsyncClient, token: str) -> Person:
        return await _github_person(client, own.api_url, token)

    return {
        "github": Provider(
            "github", own.client_id, own.client_secret, own.authorize_url, own.token_url,
            "read:user user:email", who,
        )
    }  # fmt: skip


def authorize_url(provider: Provider, redirect_uri: str, state: str, verifier: str) -> str:
    """Where to send the browser."""
    digest = hashlib.sha256(verifier.encode()).digest()
    question = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        "scope": provider.scope,
        "state": state,
        "code_challenge": urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    return f"{provider.authorize_url}?{urlencode(question)}"


async def identify(provider: Provider, code: str, verifier: str, redirect_uri: str) -> Person:
    """Trade the code and ask who it was. Raises `ProviderFailed`."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = await client.post(
                provider.token_url,
                data={
                    "grant_type": "authorization_code",
                    "client_id": provider.client_id,
                    "client_secret": provider.client_secret,
                    "code": code,
                    "redirect_uri": redirect_uri,
                    "code_verifier": verifier,
                },
                headers={"Accept": "application/json"},
            )
            token = answer.raise_for_status().json()["access_token"]
            return await provider.who(client, str(token))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, msgspec.ValidationError):
        # not the cause: it may hold the code, the token or the person's data
        raise ProviderFailed(provider.name.capitalize()) from None


async def _github_person(client: httpx.AsyncClient, api_url: str, token: str) -> Person:
    """Its numeric id, since a name can be given to another; the primary address, if verified."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}

    async def get(path: str) -> Any:
        return (await client.get(f"{api_url}{path}", headers=headers)).raise_for_status().json()

    user = await get("/user")
    emails = [
        entry["email"]
        for entry in await get("/user/emails")
        if entry["primary"] is True and entry["verified"] is True
    ]
    return Person(str(int(user["id"])), emails[0] if emails else None, None)
