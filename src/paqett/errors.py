"""What can go wrong, each with its HTTP status and its stable code.

A code is part of the contract: MQTT, HTTP, pages and metrics say the same word.
"""

from typing import Any


class PaqettError(Exception):
    """Anything Paqett itself raises on purpose."""


class ConfigurationError(PaqettError):
    """A setting, file or server is not as it must be; the message says how to mend it."""


class SchemaOutdatedError(PaqettError):
    """Database and program do not fit each other; the message says what to run."""


class SchemaBehindError(SchemaOutdatedError):
    """The database is older than this program: it can be waited for."""


class MigrationStopped(PaqettError):
    """A step of a migration was in the way of others, or they of it; nothing of it was done."""


class NotRetried(PaqettError):
    """A job for which trying again would change nothing: it fails for good, where it is seen."""


class Problem(PaqettError):
    """A refusal a client is told about, as an RFC 9457 problem.

    `status` is the HTTP status, `code` the stable word, `detail` one sentence for a person.
    `extra` members and `headers` go into the answer as they are.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra or {}
        self.headers = headers or {}


class Unauthorized(Problem):
    """No credentials, or credentials that are not known."""

    status = 401
    code = "unauthorized"
    title = "Sign-in required"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="paqett"'})


class MissingScope(Problem):
    """The key is known but lacks the scope the endpoint needs."""

    status = 403
    code = "missing_scope"
    title = "Missing scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key lacks the scope {scope}.", extra={"scope": scope})


class NotFound(Problem):
    """There is no such thing, or it is somebody else's: the answer is the same."""

    status = 404
    code = "not_found"
    title = "Not found"


class RequestTimeout(Problem):
    """The request's body took too long to arrive; the connection is closed."""

    status = 408
    code = "request_timeout"
    title = "Request too slow"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"The whole request must arrive within {timeout_s:g} s.",
            headers={"Connection": "close"},
        )


class Conflict(Problem):
    """The request clashes with what is stored."""

    status = 409
    code = "conflict"
    title = "Conflict"


class LimitReached(Problem):
    """A limit of the account's plan is reached."""

    status = 409
    code = "plan_limit"
    title = "Plan limit reached"


class TooLarge(Problem):
    """The request's body is larger than is read."""

    status = 413
    code = "payload_too_large"
    title = "Request too large"


class HeadTooLarge(Problem):
    """The request's line and headers are larger than is read."""

    status = 431
    code = "head_too_large"
    title = "Request head too large"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The request's line and headers may have {most} bytes.",
            headers={"Connection": "close"},
        )


class UnsupportedMediaType(Problem):
    """The body is of a kind, or in an encoding, that is not read here."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class Invalid(Problem):
    """A parameter or member of the body is wrong; `field` names it."""

    status = 422
    code = "invalid"
    title = "Invalid request"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail, extra={"field": field} if field else None)


class TooManyRequests(Problem):
    """A limit on how often something may be asked is reached; the headers say which and how long.

    At most `limit` in `window_s` seconds; one more is possible in `retry_after` seconds. The
    headers follow draft-ietf-httpapi-ratelimit-headers-10.
    """

    status = 429
    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, policy: str, limit: int, window_s: int, retry_after: int) -> None:
        super().__init__(
            f"Too many requests: at most {limit} in {window_s} s. Try again in {retry_after} s.",
            headers={"Retry-After": str(retry_after)}
            | rate_headers(policy, limit, window_s, 0, retry_after),
        )


def rate_headers(
    policy: str, limit: int, window_s: int, remaining: int, resets_s: int
) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy`: `remaining` of `limit`, whole again in `resets_s`."""
    return {
        "RateLimit-Policy": f'"{policy}";q={limit};w={window_s}',
        "RateLimit": f'"{policy}";r={remaining};t={resets_s}',
    }


class Unavailable(Problem):
    """The database is away or too slow just now; trying again is right."""

    status = 503
    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(self, detail: str, *, retry_after: int = 2) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class TooManyConnections(Unavailable):
    """This process serves as many connections as it is set to."""

    code = "too_many_connections"
    title = "Too many connections"

    def __init__(self) -> None:
        super().__init__("Too many connections at once; try again.")
        self.headers["Connection"] = "close"
