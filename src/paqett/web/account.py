"""`/api/v1/account` and `/api/v1/sessions`: what a person sees and changes of their own account."""

from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from paqett import accounts, db, mails, passwords, sessions, throttle
from paqett.accounts import PersonName, Profile
from paqett.app import Services
from paqett.erasure.closing import Closing
from paqett.lists import Page
from paqett.web import auth, deletion
from paqett.web.opening import SignedIn, change_password, check_password, renewed
from paqett.web.session_cookie import CSRF_HEADER, session_token
from paqett.web.sign_in import Accepted, Address, Secret

_Request = Request[Any, Any, State]


class ProfileChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change; null clears a name, what is left out stays."""

    first_name: PersonName | msgspec.UnsetType | None = msgspec.UNSET
    surname: PersonName | msgspec.UnsetType | None = msgspec.UNSET
    time_zone: str | msgspec.UnsetType = msgspec.UNSET


class PasswordChange(msgspec.Struct, forbid_unknown_fields=True):
    """The password to be, and the present one unless the person was just re-authenticated."""

    password: Secret
    current_password: Secret | None = None


class AccountController(Controller):
    """The account of the session; an API key does not open it."""

    path = "/api/v1/account"
    tags = ["account"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**auth.needs_session(while_disabled=True))
    async def get_account(self, request: _Request) -> Response[Profile]:
        """The account; the header `X-CSRF-Token` carries what writes must send."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            profile = await accounts.profile(conn, auth.principal_of(request).account.id)
        token = session_token(request) or ""
        return Response(profile, headers={CSRF_HEADER: sessions.csrf_token(token)})

    @patch(**auth.needs_session())
    async def update_account(self, request: _Request, data: JSONBody[ProfileChange]) -> Profile:
        """Names and time zone."""
        services: Services = request.app.state.services
        changes = {k: v for k, v in msgspec.structs.asdict(data).items() if v is not msgspec.UNSET}
        async with db.transaction(services.pool) as conn:
            return await accounts.update(conn, auth.principal_of(request).account.id, changes)

    @delete(
        status_code=202, request_body=deletion.WHEN,
        **auth.needs_session(recent=True, while_disabled=True),
    )  # fmt: skip
    async def delete_account(self, request: _Request) -> Response[Closing]:
        """Close the account at once, and erase it in 7 days or now; the answer says what follows.

        Every session ends with it, this one too. Until the erasure begins it can be undone.
        """
        return await deletion.delete_account(request)

    @post("/password", status_code=200, **auth.needs_session())
    async def change_password(
        self, request: _Request, data: JSONBody[PasswordChange]
    ) -> Response[SignedIn]:
        """Set it; every other session ends, this one goes on under a new token."""
        services: Services = request.app.state.services
        session = auth.session_of(request)
        async with db.transaction(services.pool) as conn:
            account = await accounts.sign_in_of(conn, auth.principal_of(request).account.id)
            key = str(account.id)
            await throttle.hit(conn, throttle.REAUTHENTICATE_ACCOUNT, key, services.clock())
        if account.password_hash is None or data.current_password is None:
            auth.require_recent(session, services)
        else:
            await check_password(services, account, data.current_password)
        passwords.check(data.password, account.email, account.first_name, account.surname)
        hashed = await services.hasher.hash(data.password)
        async with db.transaction(services.pool) as conn:
            now = services.clock()
            await change_password(conn, account.id, hashed, now, but=session.id)
        return await renewed(request)

    @post("/email", status_code=202, **auth.needs_session(recent=True))
    async def change_email(self, request: _Request, data: JSONBody[Address]) -> Accepted:
        """Ask for another address: it counts once the mail sent there is answered."""
        services: Services = request.app.state.services
        account = auth.principal_of(request).account
        async with db.transaction(services.pool) as conn:
            key = str(account.id)
            await throttle.hit(conn, throttle.CODE_ACCOUNT, key, services.clock())
            other = await accounts.find_sign_in(conn, data.email)
            taken = other is not None and other.email_verified_at is not None
            await accounts.set_pending_email(conn, account.id, None if taken else data.email)
            if other is not None and taken:
                await mails.defer(conn, "email_in_use", other.id)
            else:
                await mails.defer(conn, "change_email", account.id)
        return Accepted("verification_sent")


class SessionController(Controller):
    """Where the account is signed in."""

    path = "/api/v1/sessions"
    tags = ["account"]  # noqa: RUF012 - litestar reads it as a class attribute

    @get(**auth.needs_session(while_disabled=True))
    async def list_sessions(self, request: _Request) -> Page:
        """Live sessions, and ended ones of the last 30 days, newest first."""
        services: Services = request.app.state.services
        account, session = auth.principal_of(request).account, auth.session_of(request)
        async with db.transaction(services.pool) as conn:
            return Page(await sessions.list_sessions(conn, account.id, session.id), None)

    @delete(status_code=204, **auth.needs_session(while_disabled=True))
    async def end_sessions(self, request: _Request) -> None:
        """Sign out everywhere, here too."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            account = auth.principal_of(request).account
            await sessions.end_all(conn, account.id, services.clock())

    @delete("/{session_id:int}", status_code=204, **auth.needs_session(while_disabled=True))
    async def end_session(self, request: _Request, session_id: FromPath[int]) -> None:
        """Sign out one of them."""
        services: Services = request.app.state.services
        async with db.transaction(services.pool) as conn:
            account = auth.principal_of(request).account
            await sessions.end(conn, account.id, session_id, services.clock())
