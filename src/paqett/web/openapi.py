"""The OpenAPI document, with every refusal in it that a handler can give.

Most follow from how a handler is declared: who may call it, what it reads, what it names. What only
the handler itself knows stands beside it: `problems=(409,)`, `request_body={…}`, and of its answer
`forms={media type: schema}` besides JSON and `answer_headers={name: description}`.
"""

from typing import Any

from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute
from litestar.serialization import encode_json

from paqett import __version__
from paqett.web import ingest
from paqett.web.auth import DEVICE_SCHEME, SCHEME, SESSION_SCHEME
from paqett.web.session_cookie import CSRF_HEADER

_Document = dict[str, Any]
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_SCHEMA: _Document = {
    "type": "object",
    "description": "RFC 9457; `code` is the stable word, further members depend on it.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "code", "detail"],
}
# each event of a stream, since OpenAPI 3.1 has no word for the whole of it
_EVENT: _Document = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["reading", "rejection", "status", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
_WORDS = {
    400: "The signature is missing, wrong or too old.",
    401: "No credentials, or credentials that are not known.",
    403: "Known, but not allowed: a scope, the CSRF token or a recent proof is missing.",
    404: "There is no such thing, or it is somebody else's.",
    406: "`Accept` names no form there is.",
    408: "The request took too long to arrive.",
    409: "It clashes with what is stored, or a limit of the plan is reached.",
    410: "It was there, and has had its time.",
    413: "The body is larger than is read.",
    415: "The body is of a kind, or in an encoding, that is not read here.",
    416: "The part asked for lies behind the end.",
    422: "A parameter or a member of the body is wrong; `field` names it.",
    429: "Too often; `Retry-After` says when to come back.",
    501: "This installation cannot do it; its operator must change something first.",
    502: "Somebody else's server did not answer as it should.",
    503: "The database is away or too slow just now; `Retry-After` says when to come back.",
}


def config(session_cookie: str) -> OpenAPIConfig:
    """What Litestar is told; people's sessions are in the cookie of that name."""
    schemes = {
        SCHEME: SecurityScheme(
            type="http", scheme="bearer", description="An API key: `pqt_…`, with its scopes."
        ),
        SESSION_SCHEME: SecurityScheme(
            type="apiKey", name=session_cookie, security_scheme_in="cookie",
            description=f"A signed-in person; writes carry the header `{CSRF_HEADER}`.",
        ),
        DEVICE_SCHEME: SecurityScheme(
            type="http", scheme="basic", description="A device: its id and its secret."
        ),
    }  # fmt: skip
    return OpenAPIConfig(
        title="Paqett",
        version=__version__,
        path="/schema",
        render_plugins=[_Complete(path=["/", "/openapi.json"])],
        components=Components(security_schemes=schemes),  # type: ignore[arg-type]
    )


class _Complete(JsonRenderPlugin):
    """The document as JSON, completed when it is first asked for."""

    _rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: _Document) -> bytes:
        """What Litestar made of the handlers, and their refusals."""
        if self._rendered is None:
            _complete(openapi_schema, request.app)
            self._rendered = encode_json(openapi_schema)
        return self._rendered


def _complete(document: _Document, app: Litestar) -> None:
    document["components"]["schemas"]["Problem"] = _SCHEMA
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path_format in document["paths"]:
            for method, (handler, _) in route.route_handler_map.items():
                operation = document["paths"][route.path_format].get(method.lower())
                if operation is not None:
                    _complete_operation(operation, handler)


def _complete_operation(operation: _Document, handler: HTTPRouteHandler) -> None:
    body = ingest.REQUEST_BODY if handler.opt.get("device") else handler.opt.get("request_body")
    if body is not None:  # read by the handler itself, so its types do not show it
        operation["requestBody"] = body
    responses = operation["responses"]
    responses.pop("400", None)  # Litestar's own, which is answered as 422
    responses.get("204", {}).pop("content", None)
    for kind, content in responses.get("200", {}).get("content", {}).items():
        if kind == "text/event-stream":
            content["schema"] = _EVENT
    for media_type, schema in handler.opt.get("forms", {}).items():
        responses["200"]["content"][media_type] = {"schema": schema}
    for name, about in handler.opt.get("answer_headers", {}).items():
        shown = {"schema": {"type": "string"}, "description": about}
        responses["200"].setdefault("headers", {})[name] = shown
    for status in sorted(_refusals(operation) | set(handler.opt.get("problems", ()))):
        responses[str(status)] = {
            "description": _WORDS[status],
            "content": {"application/problem+json": {"schema": _PROBLEM}},
        }


def _refusals(operation: _Document) -> set[int]:
    """What follows from the declaration alone."""
    found = {429, 503}
    if {} not in operation["security"]:
        found |= {401, 403}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        found |= {404}
    if operation.get("parameters"):
        found |= {422}
    if "requestBody" in operation:
        found |= {408, 413, 415, 422}
    return found
