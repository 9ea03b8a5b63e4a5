"""`/api/v1/auth/{provider}`: to GitHub, or another provider, and back signed in."""

import secrets
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import Cookie, State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Redirect

from paqett import db, identities, oauth, throttle
from paqett.accounts import SignIn
from paqett.app import Services
from paqett.errors import NotFound
from paqett.identities import Attempt
from paqett.oauth import Person, Provider
from paqett.settings import Settings
from paqett.web import auth
from paqett.web.client import client_network
from paqett.web.opening import open_session
from paqett.web.session_cookie import session_cookie
from paqett.web.sign_in import RegistrationClosed

_Request = Request[Any, Any, State]
HELD_S = 600
_FOR_BROWSERS = {"page": True}  # refusals are pages, since nobody else comes here
_Short = Annotated[str, QueryParameter(max_length=512)]


class Elsewhere(msgspec.Struct):
    """Where the browser is to go next."""

    url: str


class OAuthController(Controller):
    """Redirects for browsers; nothing a provider says is put into an address."""

    path = "/api/v1/auth"
    tags = ["sign-in"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get("/{provider:str}/start", status_code=302, opt=_FOR_BROWSERS, **auth.public())
    async def start(
        self,
        request: _Request,
        provider: FromPath[str],
        return_to: _Short = "/",
        age_confirmed: FromQuery[bool] = False,
    ) -> Redirect:
        """To the provider. `age_confirmed` says that the person is 13 or older."""
        services: Services = request.app.state.services
        chosen = _provider(request, provider)
        attempt = Attempt(
            chosen.name, secrets.token_urlsafe(48), local_path(return_to), age_confirmed, None
        )
        async with db.transaction(services.pool) as conn:
            network = client_network(request)
            await throttle.hit(conn, throttle.PROVIDER_ADDRESS, network, services.clock())
        url, held = await _begin(request, chosen, attempt)
        return Redirect(url, status_code=302, cookies=[held])

    @get(
        "/{provider:str}/callback", status_code=303, problems=(403, 409, 502), opt=_FOR_BROWSERS,
        **auth.public(),
    )  # fmt: skip
    async def callback(
        self,
        request: _Request,
        provider: FromPath[str],
        came_with: Annotated[str, QueryParameter(name="state", max_length=512)] = "",
        code: _Short = "",
    ) -> Redirect:
        """Back from the provider: signed in, registered, or joined."""
        services: Services = request.app.state.services
        chosen = _provider(request, provider)
        held = request.cookies.get(cookie_name(services.settings), "")
        async with db.transaction(services.pool) as conn:
            attempt = await identities.come_back(
                conn, chosen.name, came_with, held, services.clock()
            )
        address = _callback_address(request, chosen)
        person = await oauth.identify(chosen, code, attempt.code_verifier, address)
        cookies = [_held(services, "")]
        if attempt.account_id is not None:
            await auth.require_session_of(request, attempt.account_id)
            async with db.transaction(services.pool) as conn:
                await identities.join(
                    conn, attempt.account_id, chosen.name, person, services.clock()
                )
        else:
            account = await _account(services, attempt, person)
            token, _ = await open_session(request, account, chosen.name)
            cookies.append(session_cookie(services.settings, token))
        return Redirect(attempt.return_to, status_code=303, cookies=cookies)

    @post("/{provider:str}/join", status_code=200, **auth.needs_session(recent=True))
    async def join(self, request: _Request, provider: FromPath[str]) -> Response[Elsewhere]:
        """Let a provider sign in to this account: the browser is to go to `url`."""
        chosen = _provider(request, provider)
        account = auth.principal_of(request).account
        attempt = Attempt(chosen.name, secrets.token_urlsafe(48), "/settings", False, account.id)
        url, held = await _begin(request, chosen, attempt)
        return Response(Elsewhere(url), cookies=[held])

    @delete(
        "/{provider:str}/join", status_code=204, problems=(409,), **auth.needs_session(recent=True)
    )
    async def part(self, request: _Request, provider: FromPath[str]) -> None:
        """Let it sign in no longer."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            await identities.part(conn, auth.principal_of(request).account.id, provider)


async def _begin(request: _Request, provider: Provider, attempt: Attempt) -> tuple[str, Cookie]:
    services: Services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        state = await identities.begin(conn, attempt, services.clock())
    url = oauth.authorize_url(
        provider, _callback_address(request, provider), state, attempt.code_verifier
    )
    return url, _held(services, state)


async def _account(services: Services, attempt: Attempt, person: Person) -> SignIn:
    async with db.transaction(services.pool) as conn:
        now = services.clock()
        found = await identities.find(conn, attempt.provider, person, now)
        if found is not None:
            return found
        if not services.settings.auth.open_registration:
            raise RegistrationClosed
        return await identities.register(conn, attempt, person, services.first_plan, now)


def _provider(request: _Request, name: str) -> Provider:
    """Raises `NotFound` for one that is not set up here."""
    found = oauth.providers(request.app.state.services.settings).get(name)
    if found is None:
        raise NotFound(f"Signing in with {name[:32]} is not set up here.")
    return found


def _callback_address(request: _Request, provider: Provider) -> str:
    base = request.app.state.services.settings.public_url
    return f"{base}/api/v1/auth/{provider.name}/callback"


def local_path(path: str) -> str:
    """A path on this site, or its front page: never a way to somewhere else (open redirect)."""
    local = path.startswith("/") and path.isprintable() and path.isascii()
    return path if local and "\\" not in path and not path.startswith("//") else "/"


def cookie_name(settings: Settings) -> str:
    """Of the cookie that is there while somebody signs in elsewhere."""
    return "__Host-paqett_sign_in" if settings.behind_tls else "paqett_sign_in"


def _held(services: Services, state: str) -> Cookie:
    """Binds the sign-in to the browser that began it; gone when it is over."""
    return Cookie(
        cookie_name(services.settings), value=state, max_age=HELD_S if state else 0, path="/",
        secure=services.settings.behind_tls, httponly=True, samesite="lax",
    )  # fmt: skip
