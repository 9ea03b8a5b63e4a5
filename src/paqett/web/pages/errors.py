"""Refusals as pages, for whoever looks with a browser: what was wrong, and the way out."""

from typing import Any

from litestar import Request, Response

from paqett.web.pages import view, words

_Request = Request[Any, Any, Any]
_RETRY = {429, 503}


def wants_page(request: _Request) -> bool:
    """Whether a person is looking: by `Accept`, outside the API, and where a handler says so."""
    if request.app.template_engine is None or "text/html" not in request.headers.get("accept", ""):
        return False
    # not by `request.url`, which cannot be read where a client sent a host that is none
    path: str = request.scope["path"]
    return not path.startswith(("/api/", "/hooks/")) or bool(_opt(request, "page"))


def page(
    request: _Request, status: int, code: str, title: str, detail: str, headers: dict[str, str]
) -> Response[Any]:
    """The refusal as a page; to the sign-in where that is all that is missing."""
    if status == 401 and _opt(request, "session"):
        return view.sign_in_first(request)
    told = words.tell(code, title, detail)
    kept = {name: value for name, value in headers.items() if name != "WWW-Authenticate"}
    wait = int(kept.get("Retry-After", 0)) if status in _RETRY else 0
    return view.render(
        request, "error.html", status=status, headers=kept, told=told, wait=wait, status_code=status
    )


def _opt(request: _Request, name: str) -> Any:
    handler = request.scope.get("route_handler")
    return handler.opt.get(name) if handler is not None else None
