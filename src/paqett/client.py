"""A client of the HTTP API: `with Client(url, key) as paqett: for row in paqett.readings(id): …`.

Lists come as iterators over every page; what the API refuses is an `ApiProblem` with its code.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import msgspec

from paqett.errors import PaqettError

Value = float | bool | str | None
Time = datetime | str | int
"""A time with its offset, a text the API reads (`-24h`), or epoch milliseconds."""

_T = TypeVar("_T")
_TIMEOUT_S = 60.0
_MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


class ApiProblem(PaqettError):
    """What the API refuses: HTTP status, stable code, one sentence, and further members.

    `retry_after` is in seconds, where the API says when to come back.
    """

    def __init__(self, status: int, members: dict[str, Any], retry_after: int | None) -> None:
        self.status = status
        self.code = str(members.get("code", "http_error"))
        self.detail = str(members.get("detail", f"HTTP {status}"))
        self.extra = members
        self.retry_after = retry_after
        super().__init__(f"{self.detail} ({self.code})")


class Unreachable(PaqettError):
    """The API cannot be reached, or the connection broke before the answer was whole."""


class Device(msgspec.Struct, frozen=True):
    """A device; `secret` only where it has just been made."""

    id: str
    thing_name: str
    friendly_name: str | None
    tags: list[str]
    created_at: datetime
    secret: str | None = None


class Latest(msgspec.Struct, frozen=True):
    """The newest reading of one metric of one device."""

    device: str
    metric: str
    kind: str
    unit: str | None
    time: datetime
    value: Value


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reading, or the aggregates of a bucket that were asked for; `time` is its start."""

    time: datetime
    device: str
    metric: str
    value: Value = None
    avg: float | None = None
    min: float | bool | None = None
    max: float | bool | None = None
    sum: float | None = None
    count: int | None = None
    first: Value = None
    last: Value = None
    p50: float | None = None
    p95: float | None = None


class Rows(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A page; `from_` and `to` as clamped to what may be read."""

    items: list[Row]
    next_cursor: str | None
    from_: datetime
    to: datetime


class Refused(msgspec.Struct, frozen=True):
    """One refusal; `index` is the item's place in what was sent."""

    index: int
    metric: str | None
    code: str
    detail: str


class Stored(msgspec.Struct, frozen=True):
    """What became of what was sent, in points."""

    accepted: int
    duplicates: int
    rejected: list[Refused]


class _Devices(msgspec.Struct, frozen=True):
    items: list[Device]
    next_cursor: str | None


class _Latest(msgspec.Struct, frozen=True):
    items: list[Latest]


class Client:
    """One keep-alive connection to the API at `url`, with an API key; times out after seconds.

    Methods raise `ApiProblem` and `Unreachable`.
    """

    def __init__(
        self, url: str, key: str, *, timeout_s: float = _TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=timeout_s,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def devices(
        self, *, tag: str | None = None, status: str | None = None, text: str | None = None
    ) -> Iterator[Device]:
        """Every device in the order they were made, or those that fit."""
        wanted = _given(tag=tag, status=status, q=text, limit=1000)
        cursor: str | None = None
        while True:
            page = self._ask(
                "GET", "/devices", _Devices, params={**wanted, **_given(cursor=cursor)}
            )
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def create_device(self, thing_name: str, **members: Any) -> Device:
        """A new device; its secret is told this once."""
        body = {"thing_name": thing_name, **members}
        return self._ask("POST", "/devices", Device, json=body)

    def latest(self, device: str | None = None, *, tag: str | None = None) -> list[Latest]:
        """The newest reading of each metric of one device, of those with a tag, or of all."""
        path = "/latest" if device is None else f"/devices/{device}/latest"
        return self._ask("GET", path, _Latest, params=_given(tag=tag)).items

    def page(self, devices: str | Sequence[str], **asked: Any) -> Rows:
        """One page; `asked` as for `readings`, with `cursor`."""
        return self._ask("POST", "/telemetry/query", Rows, json=_query(devices, asked))

    def readings(
        self, devices: str | Sequence[str], *, metrics: Sequence[str] | None = None,
        from_: Time | None = None, to: Time | None = None, bucket: str | None = None,
        points: int | None = None, agg: Sequence[str] | None = None, tz: str | None = None,
        fill: Literal["none", "null", "previous"] | None = None,
        order: Literal["asc", "desc"] | None = None, page_size: int = 10_000,
    ) -> Iterator[Row]:  # fmt: skip
        """Every row of a query, page after page; the parameters mean what the API's do."""
        asked = {
            "metrics": metrics, "from_": from_, "to": to, "bucket": bucket, "points": points,
            "agg": agg, "tz": tz, "fill": fill, "order": order, "limit": page_size,
        }  # fmt: skip
        cursor: str | None = None
        while True:
            page = self.page(devices, **asked, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def export(
        self, devices: str | Sequence[str], form: Literal["csv", "ndjson"] = "csv", **asked: Any
    ) -> Iterator[bytes]:
        """The whole range as it comes over the network, cut anywhere; `asked` as for `readings`."""
        headers = {"Accept": _MEDIA_TYPES[form]}
        body = _query(devices, asked)
        with (
            _reaching(),
            self._http.stream("POST", "/telemetry/query", json=body, headers=headers) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            yield from answer.iter_bytes()

    def send(self, device: str, payload: Any) -> Stored:
        """Store readings: `{"temperature": 21.5}`, with `ts`, or a list of these."""
        return self._ask("POST", f"/devices/{device}/telemetry", Stored, json=_plain(payload))

    def delete(
        self, device: str, from_: Time, to: Time, *, metrics: Sequence[str] | None = None
    ) -> None:
        """Delete the readings of `[from_, to)`; where they are many, a job goes on with it."""
        names = None if metrics is None else ",".join(metrics)
        params = {"from": _text(from_), "to": _text(to), **_given(metrics=names)}
        self._request("DELETE", f"/devices/{device}/telemetry", params=params)

    def _ask(self, method: str, path: str, kind: type[_T], **more: Any) -> _T:
        answer = self._request(method, path, **more)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise Unreachable(f"What answers is no Paqett API: {error}") from None

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        with _reaching():
            answer = self._http.request(method, path, **more)
        if answer.status_code >= 300:
            raise _problem(answer)
        return answer


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"The API cannot be reached, or broke off: {error}") from error


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        members = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        members = {}
    wait = answer.headers.get("retry-after", "")
    return ApiProblem(answer.status_code, members, int(wait) if wait.isdigit() else None)


def _query(devices: str | Sequence[str], asked: dict[str, Any]) -> dict[str, Any]:
    ids = [devices] if isinstance(devices, str) else list(devices)
    named = {name.rstrip("_"): _plain(value) for name, value in asked.items()}
    return {"devices": ids, **_given(**named)}


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _plain(value: Any) -> Any:
    """What JSON can hold; times as RFC 3339."""
    return msgspec.to_builtins(value)


def _text(time: Time) -> str:
    return str(_plain(time))
