"""What is asked of a history: over HTTP, and in SQL.

The SQL is the request's own, without what the API needs besides: one statement with the names of
devices and metrics in its answer, in one transaction with the look-up of the key.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from httptools import HttpResponseParser
from psycopg_pool import ConnectionPool

from suite.history import METRICS, TABLE

EXPORTED = 1_000_000
_KEY = """
SELECT api_key.id, scopes, device_ids, expires_at, last_used_at, account.id, account.plan,
       account.tier, account.moving_from, account.readable_from, account.disabled_at
FROM api_key JOIN account ON account.id = api_key.account_id WHERE hash = %(hash)s"""
_LATEST = f"""
SELECT device.id, metric, kind, unit, newest.time, newest.value
FROM device JOIN series ON series.device_id = device.id CROSS JOIN LATERAL (
    SELECT time, value FROM {TABLE}
    WHERE series_id = series.id AND time >= %(oldest)s ORDER BY time DESC LIMIT 1
) AS newest
WHERE device.account_id = %(account)s {{devices}}
ORDER BY device.id, metric"""
_RAW = f"""
SELECT time, device_id, metric, value FROM {TABLE} JOIN series ON series.id = series_id
WHERE series.account_id = %(account)s AND device_id = ANY (%(devices)s)
  AND metric = ANY (%(metrics)s) AND time >= %(from)s AND time < %(to)s
ORDER BY time, series_id"""
_BUCKETS = f"""
SELECT bucket, device_id, metric, avg FROM series CROSS JOIN LATERAL (
    SELECT time_bucket(%(width)s, time) AS bucket, avg(value) FROM {TABLE}
    WHERE series_id = series.id AND time >= %(from)s AND time < %(to)s GROUP BY 1 ORDER BY 1
) AS buckets
WHERE account_id = %(account)s AND device_id = ANY (%(devices)s) AND metric = ANY (%(metrics)s)
ORDER BY bucket, device_id, metric"""


@dataclass(frozen=True)
class Ask:
    """A request and the statement with the same answer; `rows` is how many there must be, 0 where
    that depends on the moment."""

    name: str
    path: str
    statement: str
    values: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    rows: int = 0


class Client:
    """One connection that is kept. Its parser is C, as psycopg is at the other end: what a client
    in pure Python takes for itself (`http.client` 0.25 ms an answer) is not the server's."""

    def __init__(self, port: int, key: str) -> None:
        self._address = ("127.0.0.1", port)
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        self._socket: socket.socket | None = None

    def reconnect(self) -> None:
        """After a pause in which the server may have given the connection up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, wanted: Ask) -> bytes:
        """The answer's body. Raises `AssertionError` for anything but 200."""
        if wanted.body is None:
            request = f"GET {wanted.path} HTTP/1.1\r\n{self._head}\r\n".encode()
        else:
            kind = f"Content-Type: application/json\r\nContent-Length: {len(wanted.body)}\r\n"
            request = f"POST {wanted.path} HTTP/1.1\r\n{self._head}{kind}\r\n".encode()
        parts: list[bytes] = []
        status = self._exchange(request + (wanted.body or b""), _Answer(parts.append))
        assert status == 200, b"".join(parts)
        return b"".join(parts)

    def export(self, path: str) -> int:
        """Bytes of a CSV that is read and thrown away."""
        self.reconnect()
        request = f"GET {path} HTTP/1.1\r\n{self._head}Accept: text/csv\r\n\r\n".encode()
        answer = _Answer(lambda _: None)
        status = self._exchange(request, answer)
        assert status == 200, status
        return answer.size

    def _exchange(self, request: bytes, answer: "_Answer") -> int:
        """Send, and read to the answer's end; gives its status."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parser = HttpResponseParser(answer)
        self._socket.sendall(request)
        while not answer.complete:
            data = self._socket.recv(1 << 18)
            assert data, "the server closed the connection"
            parser.feed_data(data)
        return int(parser.get_status_code())


class _Answer:
    """What httptools tells of an answer."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self.complete, self.size = False, 0

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        self._take(body)

    def on_message_complete(self) -> None:
        self.complete = True


class Sql:
    """Pooled psycopg, fetching binary tuples."""

    def __init__(self, pool: ConnectionPool, key: str) -> None:
        self._pool = pool
        self._hash = {"hash": hashlib.sha256(key.encode()).digest()}

    def ask(self, wanted: Ask) -> list[tuple[Any, ...]]:
        """Begin, the key, the statement, its rows, commit."""
        with self._pool.connection() as conn, conn.cursor(binary=True) as cursor:
            cursor.execute(_KEY, self._hash)
            cursor.fetchall()
            cursor.execute(wanted.statement, wanted.values)
            return cursor.fetchall()

    def export(self, wanted: Ask) -> int:
        """Bytes of COPY … TO STDOUT of the same rows as CSV."""
        size = 0
        statement = f"COPY ({wanted.statement}) TO STDOUT (FORMAT csv, HEADER)"
        with self._pool.connection() as conn, conn.cursor() as cursor:
            cursor.execute(_KEY, self._hash)
            cursor.fetchall()
            with cursor.copy(statement, wanted.values) as copy:
                for piece in copy:
                    size += len(piece)
        return size


class Asker:
    """Makes the requests for a history that ends at `end`; `devices` are ids by their names."""

    def __init__(self, account: int, devices: list[str], end: datetime, days: int) -> None:
        self._account, self._devices, self._end, self._days = account, devices, end, days

    def latest(self) -> Iterator[Ask]:
        """Of one device, and of all."""
        values = {"account": self._account, "oldest": self._end - timedelta(days=90)}
        one = self._devices[0]
        yield Ask(
            "latest of one device", f"/api/v1/devices/{one}/latest",
            _LATEST.format(devices="AND device.id = %(device)s"), {**values, "device": one},
            rows=METRICS,
        )  # fmt: skip
        number = len(self._devices)
        yield Ask(
            f"latest of {number:,} devices", "/api/v1/latest", _LATEST.format(devices=""), values,
            rows=number * METRICS,
        )  # fmt: skip

    def one_series(self) -> Iterator[Ask]:
        """Raw and in buckets."""
        yield self._of_one("one series, one hour raw", timedelta(hours=1), None, 360)
        yield self._of_one("one series, one day by 5 minutes", timedelta(days=1), "5m", 288)
        # what retention has ended since the history was made is not asked for
        readable = self._end - datetime.now(UTC) + timedelta(days=90) - timedelta(minutes=30)
        days = min(timedelta(days=self._days), readable)
        yield self._of_one(f"one series, {self._days} days by hour", days, "1h")

    def _of_one(self, name: str, span: timedelta, bucket: str | None, rows: int = 0) -> Ask:
        values = self._values(self._devices[:1], ["m0"], span)
        asked = {"metrics": "m0", **_span(values), "limit": 10_000}
        if bucket:
            asked["bucket"] = bucket
            values["width"] = timedelta(minutes=5) if bucket == "5m" else timedelta(hours=1)
        path = f"/api/v1/devices/{self._devices[0]}/telemetry?{urlencode(asked)}"
        return Ask(name, path, _BUCKETS if bucket else _RAW, values, rows=rows)

    def ten_series(self) -> Ask:
        """One metric of ten devices over a week."""
        devices = self._devices[:10]
        values = self._values(devices, ["m0"], timedelta(days=7))
        asked = {
            "devices": devices, "metrics": ["m0"], **_span(values), "bucket": "1h", "limit": 10_000
        }  # fmt: skip
        return Ask(
            "10 series, 7 days by hour", "/api/v1/telemetry/query", _BUCKETS,
            {**values, "width": timedelta(hours=1)}, json.dumps(asked).encode(), 1680,
        )  # fmt: skip

    def export(self) -> Ask:
        """All series of one device, a million readings."""
        metrics = [f"m{n}" for n in range(METRICS)]
        span = timedelta(seconds=10 * EXPORTED // METRICS)
        values = self._values(self._devices[:1], metrics, span)
        asked = {"metrics": ",".join(metrics), **_span(values)}
        path = f"/api/v1/devices/{self._devices[0]}/telemetry?{urlencode(asked)}"
        return Ask("CSV of 1 million readings", path, _RAW, values, rows=EXPORTED)

    def _values(self, devices: list[str], metrics: list[str], span: timedelta) -> dict[str, Any]:
        return {
            "account": self._account, "devices": devices, "metrics": metrics,
            "from": self._end - span, "to": self._end,
        }  # fmt: skip


def _span(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: values[name].isoformat() for name in ("from", "to")}
