"""The sockets: uvicorn with limits on time, size and number before there is a request at all."""

import asyncio
import ssl
from contextlib import nullcontext
from enum import Enum
from typing import Any

import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from paqett import certificates, log
from paqett.errors import (
    ConfigurationError,
    HeadTooLarge,
    Problem,
    RequestTimeout,
    TooManyConnections,
)
from paqett.settings import Http, Settings
from paqett.web.edge import BEGAN, DATA_POLICY, REFUSAL, security_headers
from paqett.web.problems import MEDIA_TYPE, body_of

_logger = log.get("web")
_SPARE = 100  # connections above the limit that are still told so; more are closed at once


class BadRequest(Problem):
    """What was sent is not HTTP as this server reads it."""

    status = 400
    code = "bad_request"
    title = "Not HTTP"


class _Config(uvicorn.Config):
    """uvicorn's configuration and ours, which the protocol reads from it."""

    settings: Settings


class _Part(Enum):
    """Which part of a request is arriving."""

    NONE = 0
    HEAD = 1
    BODY = 2


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, with a deadline for what arrives and what is not read.

    tests/web/test_listener.py holds the methods and fields of uvicorn that this relies on.
    """

    config: _Config
    _part = _Part.NONE
    _head_bytes = 0
    _surplus = False
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection above the limit is answered 503, one far above it is closed."""
        super().connection_made(transport)
        most = self.config.settings.http.max_connections
        self._surplus = len(self.connections) > most
        if len(self.connections) > most + _SPARE:
            transport.abort()
        else:
            self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Also blank lines between requests must become a head in time."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._part is not _Part.BODY and self._deadline is None:
            self._await_rest()
        super().data_received(data)
        if self._part is _Part.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.config.settings.http.max_head_bytes:
                self._refuse(HeadTooLarge(self.config.settings.http.max_head_bytes))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._part, self._head_bytes = _Part.HEAD, 0
        self.scope["state"][BEGAN] = self.loop.time()

    def on_headers_complete(self) -> None:
        """The head is whole: what is wrong with it is answered like any request."""
        self._stop_waiting()
        self._part = _Part.BODY
        most = self.config.settings.http.max_head_bytes
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > most:
            self.scope["state"][REFUSAL] = HeadTooLarge(most)
        elif self._surplus:
            self.scope["state"][REFUSAL] = TooManyConnections()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole: nothing more is waited for."""
        self._stop_waiting()
        self._part = _Part.NONE
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What was answered before its body had arrived must not go on arriving for ever."""
        super().on_response_complete()
        if self._part is _Part.BODY and not self.transport.is_closing():
            self._await_rest()

    def pause_writing(self) -> None:
        """A client that reads nothing of its answer is given up as well."""
        super().pause_writing()
        timeout_s = self.config.settings.http.request_timeout_s
        self._stalled = self.loop.call_later(timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """As a problem, like every other refusal."""
        self._refuse(BadRequest(msg))

    def _await_rest(self) -> None:
        self._stop_waiting()
        timeout_s = self.config.settings.http.request_timeout_s
        self._deadline = self.loop.call_later(timeout_s, self._give_up, timeout_s)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self, timeout_s: float) -> None:
        if self._part is _Part.HEAD:
            self._refuse(RequestTimeout(timeout_s))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer where no answer is under way, and close."""
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            body = body_of(problem.status, problem.code, problem.title, problem.detail)
            headers = [
                *self.server_state.default_headers,
                *security_headers(self.config.settings),
                (b"content-security-policy", DATA_POLICY.encode()),
                (b"cache-control", b"no-store"),
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(
                b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]),
            )
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn whose signals are ours: the process decides when to stop."""

    def install_signal_handlers(self) -> None:
        """None."""

    def capture_signals(self) -> Any:
        """None."""
        return nullcontext()


def listen(app: Litestar, settings: Settings, host: str, port: int, *, tls: bool = False) -> Server:
    """A server of `app`, not started. Raises `ConfigurationError` for a bad certificate."""
    http = settings.http
    config = _Config(
        app, host=host, port=port, log_config=None, access_log=False, lifespan="off",
        http=Protocol, ws="none", loop="none", server_header=False, timeout_graceful_shutdown=5,
        proxy_headers=False,
        ssl_certfile=(http.tls_cert_file or None) if tls else None,
        ssl_keyfile=(http.tls_key_file or None) if tls else None,
    )  # fmt: skip
    config.settings = settings
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"http.tls_cert_file, http.tls_key_file: {error}") from None
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return Server(config)


async def renew(server: Server, http: Http, hung_up: asyncio.Event) -> None:
    """Show a renewed certificate to whoever connects from then on; open connections keep theirs."""
    async for _ in certificates.renewals(http.tls_cert_file, http.tls_key_file, hung_up):
        context = server.config.ssl
        if context is None:
            continue
        try:
            context.load_cert_chain(http.tls_cert_file, http.tls_key_file or None, password="")
        except OSError as error:  # changed once more in this very moment: looked at again
            _logger.warning("certificate not taken", error=str(error))
        else:
            _logger.info("certificate renewed")
