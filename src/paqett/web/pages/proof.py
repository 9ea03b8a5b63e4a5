"""Proving who one is, in the form that needs it: so nothing that was typed is lost on the way."""

from typing import Any

import msgspec
from litestar import Request

from paqett.errors import Invalid, Problem
from paqett.web import auth
from paqett.web.opening import InvalidCredentials
from paqett.web.pages import access, words
from paqett.web.pages.asking import ask
from paqett.web.pages.forms import Form
from paqett.web.sign_in import Proof, SignInController

_Request = Request[Any, Any, Any]
_CODE_SENT = words.Told(
    "Look into your mail",
    "A code of eight digits is on its way. Type it below; it works once, for a few minutes.",
    "code_sent",
)


async def settle(request: _Request, form: Form) -> Form | None:
    """None once the person has proved themselves; else the form with what is missing.

    From then on the session has another token, which the answer's cookie carries.
    """
    if not access.needs_proof(request):
        return None
    try:
        if form.has("mail_code"):
            await ask(request, SignInController.reauthenticate, data=Proof())
            return msgspec.structs.replace(form, problem=_CODE_SENT)
        answer = await ask(request, SignInController.reauthenticate, data=_given(request, form))
    except InvalidCredentials:
        return form.refuse(Invalid("This is not your password.", field="current_password"))
    except Problem as error:
        return form.refuse(error, password="current_password")  # noqa: S106 - a field's name
    access.renew(request, answer.cookies[0].value)
    principal = auth.principal_of(request)
    now = request.app.state.services.clock()
    session = msgspec.structs.replace(auth.session_of(request), authenticated_at=now)
    request.scope["user"] = msgspec.structs.replace(principal, session=session)
    return None


def _given(request: _Request, form: Form) -> Proof:
    if access.profile_of(request).has_password:
        if not form.text("current_password"):
            raise Invalid("Type your password here first.", field="current_password")
        return Proof(password=form.text("current_password"))
    if not form.given("code"):
        raise Invalid("Ask for a code first, and type it here.", field="code")
    return Proof(code=form.text("code").strip())
