"""DELETE `/account`, its undoing and its receipt."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import QueryParameter

from paqett import db, throttle
from paqett.app import Services
from paqett.erasure import closing, receipts
from paqett.erasure.closing import Closing, Undone
from paqett.erasure.receipts import Receipt
from paqett.errors import Invalid, Unauthorized, UnsupportedMediaType
from paqett.web import auth
from paqett.web.client import client_network
from paqett.web.session_cookie import session_cookie

_Request = Request[Any, Any, State]
_Token = Annotated[
    str | None, QueryParameter(max_length=200, description="From a mail, instead of a session.")
]


def _optional_body(**properties: Any) -> dict[str, Any]:
    """As OpenAPI has it: the handlers read it themselves."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {"required": False, "content": {"application/json": {"schema": schema}}}


WHEN = _optional_body(when={"enum": ["now", "in 7 days"], "default": "in 7 days"})
_UNDO = _optional_body(token={"type": "string", "maxLength": 200})


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """Now means now: nothing can be undone then."""

    when: Literal["now", "in 7 days"] = "in 7 days"


class MailedToken(msgspec.Struct, forbid_unknown_fields=True):
    """The token of the mail, where it is not in the address."""

    token: Annotated[str, msgspec.Meta(max_length=200)] | None = None


_Form = TypeVar("_Form", Wish, MailedToken)


class DeletionController(Controller):
    """The deletion of the account of the session, or of whoever got the mail."""

    path = "/api/v1/account/deletion"
    tags = ["account"]  # noqa: RUF012 - litestar reads it as a class attribute

    @post(
        "/undo", status_code=200, request_body=_UNDO, problems=(401, 403, 409),
        **auth.needs_session_or_token(),
    )  # fmt: skip
    async def undo_deletion(self, request: _Request, token: _Token = None) -> Undone:
        """Open the account again: signed in, or with the token of the mail, which works once."""
        return await undo(request, token or await _token(request))

    @get("/receipt", problems=(401, 403, 404), **auth.needs_session_or_token())
    async def deletion_receipt(self, request: _Request, token: _Token = None) -> Receipt:
        """How the deletion stands, and once it is done what was erased: signed in, or by a link."""
        return await receipt(request, token)


async def delete_account(request: _Request) -> Response[Closing]:
    """What DELETE `/account` does; the session goes with it."""
    services: Services = request.app.state.services
    wish = await _read(request, Wish)
    account = auth.principal_of(request).account
    async with db.transaction(services.pool) as conn:
        answer = await closing.ask(
            conn, account.id, "person", services.clock(), at_once=wish.when == "now"
        )
    cookies = [session_cookie(services.settings, None)]
    return Response(answer, status_code=202, cookies=cookies)


async def _token(request: _Request) -> str | None:
    """The token in the body, if any. Raises `Unauthorized` where nobody is signed in either."""
    try:
        return (await _read(request, MailedToken)).token
    except Invalid:
        _signed_in(request)
        raise


async def undo(request: _Request, token: str | None) -> Undone:
    """By the token of the mail where there is one, else by who is signed in."""
    services: Services = request.app.state.services
    if token is None:
        async with db.transaction(services.pool) as conn:
            return await closing.undo(conn, _signed_in(request), services.clock())
    await _limit(request, throttle.TOKEN_ADDRESS)
    async with db.transaction(services.pool) as conn:
        return await closing.undo_by_token(conn, token, services.clock())


async def receipt(request: _Request, token: str | None) -> Receipt:
    """The same for the receipt."""
    if token is not None:
        await _limit(request, throttle.RECEIPT_ADDRESS)
    async with db.transaction(request.app.state.services.pool) as conn:
        if token is None:
            return await receipts.of_account(conn, _signed_in(request))
        return await receipts.by_token(conn, token)


async def _read(request: _Request, form: type[_Form]) -> _Form:
    """The body, which may be left out. Raises `Invalid`, and `UnsupportedMediaType` for no JSON."""
    body = await request.body()
    if not body.strip():
        return form()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send application/json, or nothing.")
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.DecodeError as error:
        raise Invalid(f"The body is not as it must be: {error}.") from None


def _signed_in(request: _Request) -> int:
    """The session's account. Raises `Unauthorized` where nobody is signed in and no token came."""
    if request.scope.get("user") is None:
        raise Unauthorized("Sign in, or send the token of the mail.")
    return auth.principal_of(request).account.id


async def _limit(request: _Request, rule: throttle.Rule) -> None:
    services: Services = request.app.state.services
    async with db.transaction(services.pool) as conn:
        network = client_network(request)
        await throttle.hit(conn, rule, network, services.clock())
