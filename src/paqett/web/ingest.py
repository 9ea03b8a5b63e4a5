"""POST `/devices/{id}/telemetry`: readings over HTTP, through the writer that MQTT uses."""

import zlib
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from paqett import db, devices
from paqett.app import Services
from paqett.errors import NotFound, Problem, TooLarge, UnsupportedMediaType
from paqett.plans import Plan
from paqett.readings.incoming import Report
from paqett.readings.ledger import LATE_BUCKET_EMPTY
from paqett.readings.limits import SLOT_US
from paqett.readings.rejection import Rejection
from paqett.web.auth import principal_of
from paqett.web.devices import allowed
from paqett.web.forbidden import DevicePaused

_FORMS = {
    "": "json",
    "application/json": "json",
    "text/json": "json",
    "text/plain": "json",
    # what curl -d says where nobody told it otherwise
    "application/x-www-form-urlencoded": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
}
_STATUS = {
    "payload_too_large": 413,
    "rate_limited": 429,
    "quota_thinned": 429,
    "quota_exceeded": 429,
    "device_disabled": 403,
    "account_closing": 403,
}
_MOST_BYTES = 1_048_576
_MOST_MEMBERS = 256  # of a gzip file
_MOST_TOLD = 100  # refusals in an answer that stored nothing; they are all in /usage/rejections
_SLOT_S = SLOT_US // 1_000_000
# for the OpenAPI document, which the handler's types do not show
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"type": "object", "description": "Metrics and their values; `ts` if known."},
                    {"type": "array", "items": {"type": "object"}, "maxItems": 500},
                ]
            }
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "One such object a line."}
        },
        "text/csv": {"schema": {"type": "string", "description": "time,metric,value"}},
    },
}


class Refused(msgspec.Struct):
    """One refusal; `index` is the item's place in the request."""

    index: int
    metric: str | None
    code: str
    detail: str


class Stored(msgspec.Struct):
    """What became of a request, in points; one `Refused` for each refusal."""

    accepted: int
    duplicates: int
    rejected: list[Refused]


async def receive(request: Request[Any, Any, State], device_id: str) -> Stored:
    """Store the request's readings; raises a `Problem` with the first code where none is."""
    services: Services = request.app.state.services
    principal = principal_of(request)
    allowed(principal, device_id)
    form = _form(request)
    plan = services.plans.get(principal.account.plan)
    most = plan.message_bytes if plan is not None else _MOST_BYTES
    body = _plain(await request.body(), request.headers.get("content-encoding", ""), most)
    async with db.transaction(services.pool) as conn:
        device = await devices.get(conn, principal.account, device_id)
    if device.paused_at is not None:
        raise DevicePaused(enabled=device.enabled)
    report = await request.app.state.door.store(device_id, body, form)
    if report.unknown:
        raise NotFound(f"There is no device {device_id[:16]}.")
    if not report.accepted and not report.duplicates:
        raise _problem(report, plan, services.clock())
    return Stored(report.accepted, report.duplicates, _refusals(report))


def _form(request: Request[Any, Any, State]) -> str:
    name = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if name not in _FORMS:
        raise UnsupportedMediaType("Send application/json, application/x-ndjson or text/csv.")
    return _FORMS[name]


def _plain(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its compression, a byte more than `most` at most: that is refused anyway."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedMediaType("Content-Encoding is gzip or none.")
    if len(body) > _MOST_BYTES:
        raise TooLarge("The body is larger than 1 MiB.")
    return _inflated(body, most + 1)


def _inflated(body: bytes, most: int) -> bytes:
    """All members of a gzip file (RFC 1952 §2.2), `most` bytes at most.

    What is not gzip comes back as it is: it is refused as no JSON, and recorded like the rest. So
    does one of too many members: each copies what is left, and tens of thousands of empty ones
    would hold up everybody for seconds.
    """
    plain, rest, members = b"", body, 0
    while rest and len(plain) < most:
        members += 1
        if members > _MOST_MEMBERS:
            return body
        inflating = zlib.decompressobj(wbits=31)
        try:
            plain += inflating.decompress(rest, most - len(plain))
        except zlib.error:
            return body
        if not inflating.eof and len(plain) < most:  # cut short
            return body
        rest = inflating.unused_data
    return plain


class _Unprocessable(Problem):
    """None of a request's readings is stored; `code` is the first refusal's."""

    title = "No reading stored"

    def __init__(
        self, code: str, detail: str, rejected: list[Refused], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail, extra={"rejected": rejected}, headers=headers)
        self.code = code
        self.status = _STATUS.get(code, 422)


def _refusals(report: Report) -> list[Refused]:
    return [Refused(r.index, r.metric, r.code, r.detail) for r in report.rejected]


def _problem(report: Report, plan: Plan | None, now: datetime) -> Problem:
    if not report.rejected:
        return _Unprocessable("bad_json", "The body holds no readings.", [])
    first = report.rejected[0]
    headers = {} if plan is None else _limits(first, plan, now)
    told = _refusals(report)[:_MOST_TOLD]
    return _Unprocessable(first.code, f"{first.detail}.", told, headers)


def _limits(first: Rejection, plan: Plan, now: datetime) -> dict[str, str]:
    """Which limit, and when it holds no longer (draft-ietf-httpapi-ratelimit-headers-10)."""
    if first.detail == LATE_BUCKET_EMPTY:
        return {"Retry-After": "60"}
    if first.code == "rate_limited" and plan.messages_per_second:
        burst = plan.message_burst or plan.messages_per_second
        wait_s = ceil(1 / plan.messages_per_second)
        policy = f'"messages";q={burst};w={ceil(burst / plan.messages_per_second)}'
        name = "messages"
    elif first.code in ("quota_thinned", "quota_exceeded") and plan.points_per_day:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        wait_s = ceil((midnight - now).total_seconds())
        if first.code == "quota_thinned":  # the next aligned 5 minutes take one again
            wait_s = min(wait_s, _SLOT_S - int(now.timestamp()) % _SLOT_S)
        policy, name = f'"points";q={plan.points_per_day};w=86400', "points"
    else:
        return {}
    return {
        "Retry-After": str(wait_s),
        "RateLimit-Policy": policy,
        "RateLimit": f'"{name}";r=0;t={wait_s}',
    }
