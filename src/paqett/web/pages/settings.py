"""`/settings`: the person, how they sign in, where they are signed in, what is mailed to them."""

from typing import Any
from zoneinfo import available_timezones

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template

from paqett.errors import Problem
from paqett.notice_events import OPTIONAL_KINDS
from paqett.notices import PreferencesIn
from paqett.web import deletion
from paqett.web.account import AccountController, PasswordChange, ProfileChange, SessionController
from paqett.web.notices import PreferenceController
from paqett.web.oauth import OAuthController
from paqett.web.pages import access, proof, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.sign_in import Address

_Request = Request[Any, Any, State]
_ZONES = sorted(name for name in available_timezones() if "/" in name or name == "UTC")


async def _show(request: _Request, form: Form | None = None) -> Template:
    me = access.profile_of(request)
    disabled = me.disabled_at is not None or me.closing_at is not None
    preferences = None if disabled else await ask(request, PreferenceController.get_preferences)
    page = await ask(request, SessionController.list_sessions)
    return view.render(
        request, "settings.html", form=form, preferences=preferences, sessions=page.items,
        zones=[(name, name.replace("_", " ")) for name in _ZONES], kinds=OPTIONAL_KINDS,
    )  # fmt: skip


@get("/settings", **access.person(while_disabled=True))
async def settings(request: _Request) -> Template:
    """Everything about the person."""
    return await _show(request)


async def _change(
    request: _Request, handler: HTTPRouteHandler, form: Form, word: str, data: Any
) -> Response[Any]:
    try:
        await ask(request, handler, data=data())
    except Problem as error:
        return await _show(request, form.refuse(error))
    return view.done(request, "/settings", word)


@post("/settings/profile", **access.person())
async def change_profile(request: _Request) -> Response[Any]:
    """Names and time zone."""
    form = await sent(request)
    given = {
        "first_name": form.given("first_name"),
        "surname": form.given("surname"),
        "time_zone": form.text("time_zone", "UTC"),
    }
    handler = AccountController.update_account
    return await _change(request, handler, form, "saved", lambda: convert(given, ProfileChange))


@post("/settings/email", **access.person())
async def change_email(request: _Request) -> Response[Any]:
    """Another address, once the mail sent there is answered."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _show(request, refused)
    given = {"email": form.text("email").strip()}
    handler = AccountController.change_email
    return await _change(request, handler, form, "email_asked", lambda: convert(given, Address))


@post("/settings/password", **access.person())
async def change_password(request: _Request) -> Response[Any]:
    """A new one; every other session ends."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _show(request, refused)
    try:
        data = convert({"password": form.text("password")}, PasswordChange)
        answer = await ask(request, AccountController.change_password, data=data)
    except Problem as error:
        return await _show(request, form.refuse(error))
    access.renew(request, answer.cookies[0].value)
    return view.done(request, "/settings", "password_changed")


@post("/settings/notifications", **access.person())
async def change_notifications(request: _Request) -> Response[Any]:
    """Which kinds of notices go out, by mail and to webhooks."""
    form = await sent(request)
    given = {
        kind: {way: kind in form.all(way) for way in ("mail", "webhook")} for kind in OPTIONAL_KINDS
    }
    handler = PreferenceController.put_preferences
    return await _change(request, handler, form, "saved", lambda: convert(given, PreferencesIn))


@post("/settings/sessions/{session_id:int}/end", **access.person(while_disabled=True))
async def end_session(request: _Request, session_id: FromPath[int]) -> Response[Any]:
    """Sign out one of them."""
    await ask(request, SessionController.end_session, session_id=session_id)
    return view.done(request, "/settings", "session_ended")


@post("/settings/sessions/end", **access.person(while_disabled=True))
async def end_sessions(request: _Request) -> Response[Any]:
    """Sign out everywhere, here too."""
    await ask(request, SessionController.end_sessions)
    return view.done(request, "/sign-in", "signed_out")


@post("/settings/{provider:str}/join", **access.person())
async def join(request: _Request, provider: FromPath[str]) -> Response[Any]:
    """Let a provider sign in to this account: there, and back."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _show(request, refused)
    answer = await ask(request, OAuthController.join, provider=provider)
    return view.away(request, answer.content.url, provider.capitalize(), answer.cookies)


@post("/settings/{provider:str}/part", **access.person())
async def part(request: _Request, provider: FromPath[str]) -> Response[Any]:
    """Let it sign in no longer."""
    form = await sent(request)
    if refused := await proof.settle(request, form):
        return await _show(request, refused)
    try:
        await ask(request, OAuthController.part, provider=provider)
    except Problem as error:
        return await _show(request, form.refuse(error))
    return view.done(request, "/settings", "github_off")


@post("/settings/undo-deletion", **access.person(while_disabled=True))
async def undo_deletion(request: _Request) -> Response[Any]:
    """The account stays."""
    form = await sent(request)
    try:
        await deletion.undo(request, None)
    except Problem as error:
        return await _show(request, form.refuse(error))
    return view.done(request, "/settings", "deletion_undone")


HANDLERS = (
    settings, undo_deletion, change_profile, change_email, change_password, change_notifications,
    end_session, end_sessions, join, part,
)  # fmt: skip
