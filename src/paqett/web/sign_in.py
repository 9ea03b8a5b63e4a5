"""`/api/v1/auth`: register, verify, sign in and out, prove oneself again, reset a password.

None of it tells whether an address has an account: answers, statuses, rows and hashing are the same
for both, and a refused sign-in is answered no sooner than `_REFUSED_AFTER_S`.
"""

import asyncio
import time
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from paqett import (
    accounts,
    db,
    log,
    mails,
    notices,
    passwords,
    registration,
    sessions,
    throttle,
    tokens,
)
from paqett.accounts import Email, SignIn
from paqett.app import Services
from paqett.errors import Problem
from paqett.principals import Principal
from paqett.registration import Registration
from paqett.web import auth
from paqett.web.client import client_address, client_network
from paqett.web.opening import (
    InvalidCredentials,
    SignedIn,
    answered,
    change_password,
    check_password,
    open_session,
    renewed,
)
from paqett.web.session_cookie import session_cookie

_Request = Request[Any, Any, State]
_logger = log.get("sign-in")
# Longer than any hash takes, also an old bcrypt one, so that time tells nothing.
_REFUSED_AFTER_S = 0.5
_BODY: dict[str, Any] = {"request_max_body_size": 16_384}
Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """An address and its password."""

    email: Annotated[str, msgspec.Meta(max_length=254, pattern=r"^[^\x00]*$")]
    password: Secret


class Proof(msgspec.Struct, forbid_unknown_fields=True):
    """The password; where the account has none, nothing to be mailed a code, then the code."""

    password: Secret | None = None
    code: Secret | None = None


class Address(msgspec.Struct, forbid_unknown_fields=True):
    """An e-mail address."""

    email: Email


class MailedToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token from a mail."""

    token: Secret


class NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    """A token from a mail and the password to be."""

    token: Secret
    password: Secret


class Accepted(msgspec.Struct):
    """What happens next; the same whether or not the address has an account."""

    status: str


class Verified(msgspec.Struct):
    """The address that is now verified."""

    email: str


class EmailNotVerified(Problem):
    """The password is right; the address has not been confirmed yet."""

    status = 403
    code = "email_not_verified"
    title = "E-mail not verified"

    def __init__(self) -> None:
        super().__init__("Confirm your address first: a new mail with a link is on its way.")


class RegistrationClosed(Problem):
    """The operator makes the accounts here."""

    status = 403
    code = "registration_closed"
    title = "Registration closed"

    def __init__(self) -> None:
        super().__init__("Accounts are made by this installation's operator.")


class SignInController(Controller):
    """Getting in, and out again."""

    path = "/api/v1/auth"
    tags = ["sign-in"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post("/register", status_code=202, problems=(403,), **_BODY, **auth.public())
    async def register(self, request: _Request, data: JSONBody[Registration]) -> Accepted:
        """Ask for an account; a mail with a link follows, also where there is one already."""
        services: Services = request.app.state.services
        if not services.settings.auth.open_registration:
            raise RegistrationClosed
        registration.check(data)
        passwords.check(data.password, data.email, data.first_name, data.surname)
        async with db.transaction(services.pool) as conn:
            now = services.clock()
            await throttle.hit(conn, throttle.REGISTER_ADDRESS, client_network(request), now)
            await throttle.hit(conn, throttle.REGISTER_EMAIL, data.email.lower(), now)
        hashed = await services.hasher.hash(data.password)
        async with db.transaction(services.pool) as conn:
            plan = services.first_plan
            await registration.register(conn, data, hashed, plan, services.clock())
        return Accepted("verification_sent")

    @post("/verify-email", status_code=200, **_BODY, **auth.public())
    async def verify_email(self, request: _Request, data: JSONBody[MailedToken]) -> Verified:
        """Show that a mail arrived: of a registration, or of a change of address."""
        services: Services = request.app.state.services
        await _limit_tokens(request)
        async with db.transaction(services.pool) as conn:
            now = services.clock()
            token = await tokens.redeem(conn, data.token, ["verify_email", "change_email"], now)
            if token.purpose == "verify_email":
                await registration.verify(conn, token, now)
            else:
                old = await accounts.change_email(conn, token.account_id, token.email, now)
                await notices.notify(conn, token.account_id, "email_changed", to_old=old)
        return Verified(token.email)

    @post("/login", status_code=200, problems=(401, 403), **_BODY, **auth.public())
    async def login(self, request: _Request, data: JSONBody[Credentials]) -> Response[SignedIn]:
        """Sign in; the session is in the cookie."""
        services: Services = request.app.state.services
        began = time.monotonic()
        account = await _look(request, data.email)
        stored = account.password_hash if account else None
        found = await services.hasher.verify(stored, data.password)
        if account is None or not found.right:
            _logger.info("sign-in refused", account=account.id if account else None)
            await asyncio.sleep(began + _REFUSED_AFTER_S - time.monotonic())
            raise InvalidCredentials
        rehashed = await services.hasher.hash(data.password) if found.outdated else None
        if account.email_verified_at is None:
            await _mail_again(services, account)
            raise EmailNotVerified
        await _forgive(request, account.email)
        return answered(services, *await open_session(request, account, "password", rehashed))

    @post("/logout", status_code=204, **auth.needs_session(while_disabled=True))
    async def logout(self, request: _Request) -> Response[None]:
        """The session ends, here and on the server."""
        services: Services = request.app.state.services
        account, session = auth.principal_of(request).account, auth.session_of(request)
        async with db.transaction(services.pool) as conn:
            await sessions.end(conn, account.id, session.id, services.clock())
        return Response(None, cookies=[session_cookie(services.settings, None)])

    @post(
        "/reauthenticate",
        status_code=200,
        responses={202: ResponseSpec(Accepted, description="A code was mailed.")},
        **_BODY,
        **auth.needs_session(while_disabled=True),
    )
    async def reauthenticate(
        self, request: _Request, data: JSONBody[Proof]
    ) -> Response[SignedIn | Accepted]:
        """Prove who you are once more, for what may not be done by whoever finds a session open."""
        services: Services = request.app.state.services
        principal = auth.principal_of(request)
        account = await _own(services, principal)
        if account.password_hash is None and data.code is None:
            await _mail_code(services, principal)
            return Response(Accepted("code_sent"), status_code=202)
        async with db.transaction(services.pool) as conn:
            key = str(account.id)
            await throttle.hit(conn, throttle.REAUTHENTICATE_ACCOUNT, key, services.clock())
        if account.password_hash is None:
            async with db.transaction(services.pool) as conn:
                await tokens.redeem_code(conn, account.id, data.code or "", services.clock())
        else:
            await check_password(services, account, data.password)
        return await renewed(request)

    @post("/password-reset", status_code=202, **_BODY, **auth.public())
    async def reset(self, request: _Request, data: JSONBody[Address]) -> Accepted:
        """A mail with a link follows where the address has an account."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            now = services.clock()
            await throttle.hit(conn, throttle.RESET_ADDRESS, client_network(request), now)
            await throttle.hit(conn, throttle.RESET_EMAIL, data.email.lower(), now)
            account = await accounts.find_sign_in(conn, data.email)
            unverified = account is not None and account.email_verified_at is None
            template: mails.Template = "verify_email" if unverified else "reset_password"
            await mails.defer(conn, template, account.id if account else 0)
        return Accepted("reset_sent")

    @post("/password-reset/confirm", status_code=200, **_BODY, **auth.public())
    async def confirm_reset(self, request: _Request, data: JSONBody[NewPassword]) -> Accepted:
        """The new password; every session ends, and the person hears of it."""
        services: Services = request.app.state.services
        passwords.check(data.password)
        await _limit_tokens(request)
        hashed = await services.hasher.hash(data.password)
        async with db.transaction(services.pool) as conn:
            now = services.clock()
            token = await tokens.redeem(conn, data.token, ["reset_password"], now)
            await change_password(conn, token.account_id, hashed, now, but=None)
            # whoever guessed the old password from everywhere must not keep its owner out now
            email = token.email.lower()
            await throttle.forgive(conn, throttle.SIGN_IN_ACCOUNT, email)
        return Accepted("password_changed")


async def _limit_tokens(request: _Request) -> None:
    services: Services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        network = client_network(request)
        await throttle.hit(conn, throttle.TOKEN_ADDRESS, network, services.clock())


async def _look(request: _Request, email: str) -> SignIn | None:
    """The account, once the limits allow a try; raises `TooManyRequests`.

    Whoever guesses from many addresses is held up by the account's own limit, which does not count
    for a network the person has signed in from before.
    """
    services: Services = request.app.state.services
    address, now = client_address(request), services.clock()
    async with db.transaction(services.pool) as conn:
        await throttle.hit(conn, throttle.SIGN_IN_ADDRESS, client_network(request), now)
        await throttle.hit(conn, throttle.SIGN_IN_PAIR, _pair(request, email), now)
        account = await accounts.find_sign_in(conn, email)
        if account is None or not (await sessions.past(conn, account.id, address)).from_here:
            await throttle.hit(conn, throttle.SIGN_IN_ACCOUNT, email.lower(), now)
    return account


async def _forgive(request: _Request, email: str) -> None:
    """The person's own tries from there do not count against them."""
    services: Services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        await throttle.forgive(conn, throttle.SIGN_IN_PAIR, _pair(request, email))


def _pair(request: _Request, email: str) -> str:
    return f"{email.lower()} {client_network(request)}"


async def _mail_again(services: Services, account: SignIn) -> None:
    async with db.transaction(services.pool) as conn:
        now = services.clock()
        await throttle.hit(conn, throttle.REGISTER_EMAIL, account.email.lower(), now)
        await mails.defer(conn, "verify_email", account.id)


async def _mail_code(services: Services, principal: Principal) -> None:
    async with db.transaction(services.pool) as conn:
        key = str(principal.account.id)
        await throttle.hit(conn, throttle.CODE_ACCOUNT, key, services.clock())
        await mails.defer(conn, "reauthenticate_code", principal.account.id)


async def _own(services: Services, principal: Principal) -> SignIn:
    async with db.transaction(services.pool) as conn:
        return await accounts.sign_in_of(conn, principal.account.id)
