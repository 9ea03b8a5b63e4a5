"""Every error as an RFC 9457 problem with a stable code, or as a page for whoever browses."""

import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send
from psycopg import errors

from paqett import log
from paqett.errors import Problem
from paqett.web.pages import errors as pages

_Request = Request[Any, Any, Any]
_logger = log.get("web")
MEDIA_TYPE = "application/problem+json"
_FIELD = re.compile("field `([^`]+)`")  # unknown or missing, in the words of msgspec
_CODES = {
    400: ("invalid", "Invalid request"),
    401: ("unauthorized", "Sign-in required"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("payload_too_large", "Request too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
}


def answer(
    request: _Request, status: int, code: str, title: str, detail: str,
    extra: dict[str, Any] | None = None, headers: dict[str, str] | None = None,
) -> Response[Any]:  # fmt: skip
    """The problem as a response."""
    if pages.wants_page(request):
        return pages.page(request, status, code, title, detail, headers or {})
    return Response(
        body_of(status, code, title, detail, extra),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def body_of(
    status: int, code: str, title: str, detail: str, extra: dict[str, Any] | None = None
) -> bytes:
    """The problem as JSON; its `type` is the code's place in docs/errors.md."""
    body = {
        "type": f"/docs/errors#{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return msgspec.json.encode({**body, **(extra or {})})


async def send_problem(send: Send, problem: Problem) -> None:
    """The problem as an answer, where no handler stands between."""
    headers = {"content-type": MEDIA_TYPE} | problem.headers
    body = body_of(problem.status, problem.code, problem.title, problem.detail, problem.extra)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    start: Any = {"type": "http.response.start", "status": problem.status, "headers": raw}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def from_problem(request: _Request, error: Problem) -> Response[Any]:
    """Ours."""
    return answer(
        request, error.status, error.code, error.title, error.detail, error.extra, error.headers
    )


def from_http(request: _Request, error: HTTPException) -> Response[Any]:
    """Litestar's: validation becomes 422 and names the field."""
    if isinstance(error, ValidationException):
        return answer(request, 422, "invalid", "Invalid request", *_validation(request, error))
    if error.status_code == 400:
        detail = "The body is not what was expected."
        return answer(request, 422, "invalid", "Invalid request", detail)
    code, title = _CODES.get(error.status_code, ("http_error", "Request refused"))
    # what methods there are (Allow) is in the exception's own headers
    headers = dict(error.headers or {})
    return answer(request, error.status_code, code, title, title + ".", None, headers)


def _validation(request: _Request, error: ValidationException) -> tuple[str, dict[str, Any]]:
    first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    message = str(first.get("message", "A parameter is wrong."))
    named = _FIELD.search(message)
    if named is None:
        return message, {"field": first["key"]} if "key" in first else {}
    place = first.get("key", "data")
    if place != "data":  # an object inside the body, named as a wrong value in it would be
        return message, {"field": f"{place}.{named[1]}"}
    known = _fields(request) if "unknown" in message else ""
    return message + known, {"field": named[1]}


def _fields(request: _Request) -> str:
    """Which fields the body may have, where it is one object."""
    body = request.route_handler.parsed_fn_signature.parameters.get("data")
    if body is None or not isinstance(body.annotation, type):
        return ""
    if not issubclass(body.annotation, msgspec.Struct):
        return ""
    names = [field.encode_name for field in msgspec.structs.fields(body.annotation)]
    return f"; there are {', '.join(names)}" if names else ""


def from_timeout(request: _Request, _: errors.QueryCanceled) -> Response[Any]:
    """A statement that took too long."""
    detail = "The query took too long: ask for a shorter range or a wider bucket."
    headers = {"Retry-After": "5"}
    return answer(request, 503, "query_timeout", "Query took too long", detail, None, headers)


def from_unreadable(request: _Request, error: RecursionError | UnicodeDecodeError) -> Response[Any]:
    """A body that the JSON decoder gives up on in ways Litestar does not expect."""
    nested = isinstance(error, RecursionError)
    detail = "The body is nested too deeply." if nested else "The body is not UTF-8."
    return answer(request, 422, "invalid", "Invalid request", detail)


def from_anything(request: _Request, error: Exception) -> Response[Any]:
    """A fault of ours: told as one, and nothing of it shown."""
    route = request.scope.get("path_template")  # a path is a stranger's text, and names things
    _logger.error("unhandled", method=request.method, route=route, exc_info=error)
    detail = "This is our fault, not yours."
    return answer(request, 500, "internal_error", "Internal error", detail)
