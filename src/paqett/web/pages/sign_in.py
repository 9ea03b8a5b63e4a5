"""Getting in: registering, confirming the address, signing in and out, a new password."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Template

from paqett.errors import Problem
from paqett.registration import Registration
from paqett.web.oauth import local_path
from paqett.web.pages import access, view
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form, convert, sent
from paqett.web.sign_in import (
    Address,
    Credentials,
    MailedToken,
    NewPassword,
    RegistrationClosed,
    SignInController,
)

_Request = Request[Any, Any, State]


def _back(form: Form) -> str:
    """Where somebody wanted to go, if that is a page of ours."""
    wanted = local_path(form.text("next", view.HOME))
    return wanted if wanted != "/" else view.HOME


def _asked(request: _Request, name: str) -> str:
    """A word of the address."""
    return str(request.query_params.get(name, ""))[:512]


@get("/sign-up", **access.public())
async def sign_up(request: _Request) -> Response[Any]:
    """The form; people who are signed in have an account."""
    if access.person_of(request):
        return view.done(request, view.HOME)
    if not request.app.state.services.settings.auth.open_registration:
        raise RegistrationClosed
    return view.render(request, "sign_up.html")


@post("/sign-up", **access.public())
async def register(request: _Request) -> Response[Any]:
    """Ask for an account; what happens next stands in a mail."""
    form = await sent(request)
    given = {
        "email": form.text("email").strip(),
        "password": form.text("password"),
        "first_name": form.given("first_name"),
        "surname": form.given("surname"),
        "age_confirmed": form.has("age_confirmed"),
        "time_zone": form.given("time_zone") or "UTC",
    }
    try:
        await ask(request, SignInController.register, data=convert(given, Registration))
    except Problem as error:
        return view.render(request, "sign_up.html", form=form.refuse(error))
    return view.done(request, "/sign-up/sent")


@get("/sign-up/sent", **access.public())
async def sign_up_sent(request: _Request) -> Template:
    """Look into the mail."""
    return view.render(request, "sign_up_sent.html")


@get("/sign-in", **access.public())
async def sign_in(request: _Request) -> Response[Any]:
    """The form; `next` is where to go afterwards, on this site."""
    wanted = local_path(_asked(request, "next") or view.HOME)
    if access.person_of(request):
        return view.done(request, wanted if wanted != "/" else view.HOME)
    return view.render(request, "sign_in.html", next=wanted)


@post("/sign-in", **access.public())
async def signed_in(request: _Request) -> Response[Any]:
    """By password; the session is in the cookie."""
    form = await sent(request)
    given = {"email": form.text("email").strip(), "password": form.text("password")}
    try:
        answer = await ask(request, SignInController.login, data=convert(given, Credentials))
    except Problem as error:
        refused = form.refuse(error)
        return view.render(request, "sign_in.html", form=refused, next=_back(form))
    gone = view.done(request, _back(form))
    gone.cookies = answer.cookies
    return gone


@post("/sign-out", **access.person(while_disabled=True))
async def sign_out(request: _Request) -> Response[Any]:
    """The session ends, here and on the server."""
    answer = await ask(request, SignInController.logout)
    gone = view.done(request, "/sign-in", "signed_out")
    gone.cookies = answer.cookies
    gone.headers["Clear-Site-Data"] = '"cache", "storage"'
    return gone


@get("/verify-email", **access.public())
async def ask_verify(request: _Request) -> Template:
    """A button: programs that look through mail follow every link."""
    return view.render(request, "verify_email.html", token=_asked(request, "token"))


@post("/verify-email", **access.public())
async def verify(request: _Request) -> Response[Any]:
    """The mail arrived: of a registration, or of a change of address."""
    form = await sent(request)
    token = form.text("token")
    try:
        data = convert({"token": token}, MailedToken)
        await ask(request, SignInController.verify_email, data=data)
    except Problem as error:
        refused = form.refuse(error)
        return view.render(request, "verify_email.html", form=refused, token=token)
    target = view.HOME if access.person_of(request) else "/sign-in"
    return view.done(request, target, "address_confirmed")


@get("/reset-password", **access.public())
async def ask_reset(request: _Request) -> Template:
    """Ask for a mail; with its token, choose the new password."""
    return view.render(request, "reset_password.html", token=_asked(request, "token"))


@post("/reset-password", **access.public())
async def reset(request: _Request) -> Response[Any]:
    """The mail is on its way whoever asks, or the password is changed."""
    form = await sent(request)
    token = form.text("token")
    try:
        if token:
            await ask(request, SignInController.confirm_reset, data=_new_password(form))
            return view.done(request, "/sign-in", "password_reset")
        given = {"email": form.text("email").strip()}
        await ask(request, SignInController.reset, data=convert(given, Address))
    except Problem as error:
        refused = form.refuse(error)
        return view.render(request, "reset_password.html", form=refused, token=token)
    return view.done(request, "/reset-password/sent")


@get("/reset-password/sent", **access.public())
async def reset_sent(request: _Request) -> Template:
    """Look into the mail."""
    return view.render(request, "reset_password_sent.html")


def _new_password(form: Form) -> NewPassword:
    given = {"token": form.text("token"), "password": form.text("password")}
    return convert(given, NewPassword)


HANDLERS = (
    sign_up, register, sign_up_sent, sign_in, signed_in, sign_out, ask_verify, verify, ask_reset,
    reset, reset_sent,
)  # fmt: skip
