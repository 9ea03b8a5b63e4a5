"""What a process tells its operator: whether it lives, whether it does its work, its metrics.

Checks are noted by the process's event loop and read by a thread of the listener's. The API has
its own handlers for the same paths, since it must answer on its own listener too.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import Gauge, Info, disable_created_metrics, make_wsgi_app

from paqett import __version__

State = Literal["ok", "warning", "failed"]
_HUNG_S = 30.0
_BEAT_EVERY_S = 1.0
_LONGEST_REQUEST_S = 10.0

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for
_build = Info("paqett_build", "The program's version.")
_build.info({"version": __version__})
_unknown = Gauge(
    "paqett_schema_unknown_migrations",
    "Migrations of the database that this program is too old to know; it is to be upgraded.",
)


class Check(msgspec.Struct, frozen=True):
    """`failed`: the process does not do its work; `warning`: it does, and something is wrong."""

    name: str
    state: State
    detail: str


class Health:
    """What a process last noted of itself. Not ready before its first note."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._checks: dict[str, Check] = {}
        self._beaten_at = clock()

    def note(self, name: str, state: State, detail: str) -> None:
        """What holds of `name` from now on."""
        self._checks[name] = Check(name, state, detail)

    def beat(self) -> None:
        """The event loop turns."""
        self._beaten_at = self._clock()

    @property
    def alive(self) -> bool:
        """Whether the event loop has turned of late; if not, only a restart helps."""
        return self._clock() - self._beaten_at < _HUNG_S

    @property
    def checks(self) -> list[Check]:
        """As they are, by name."""
        return sorted(self._checks.values(), key=lambda check: check.name)

    @property
    def ready(self) -> bool:
        """Whether the process does its work."""
        return self.alive and bool(self._checks) and all(c.state != "failed" for c in self.checks)

    async def keep_beating(self) -> None:
        """Until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(_BEAT_EVERY_S)


health = Health()
"""This process's own."""
_alive = Gauge("paqett_process_alive", "1 while the process's event loop turns.")
_alive.set_function(lambda: health.alive)


def note_schema(newer: list[str]) -> None:
    """Which of the schema's migrations this program does not know."""
    _unknown.set(len(newer))


def application(of: Health) -> Callable[..., Iterable[bytes]]:
    """`/healthz`, `/readyz` and `/metrics` as a WSGI application."""
    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = metrics(environ, start)
            return page
        if path == "/healthz":
            good, kind, body = of.alive, "text/plain", b"ok\n" if of.alive else b"hung\n"
        elif path == "/readyz":
            good, kind, body = of.ready, "application/json", _readiness(of)
        else:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found\n"]
        status = "200 OK" if good else "503 Service Unavailable"
        start(status, [("Content-Type", kind), ("Cache-Control", "no-store")])
        return [body]

    return answer


def _readiness(of: Health) -> bytes:
    checks = msgspec.to_builtins(of.checks)
    status = "ready" if of.ready else "not ready" if of.alive else "hung"
    return json.dumps({"status": status, "version": __version__, "checks": checks}).encode()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = 10  # AF_INET6


class _Silent(WSGIRequestHandler):
    timeout = _LONGEST_REQUEST_S

    def log_message(self, *_: Any) -> None:
        """Nobody needs a line for each scrape."""


def listen(host: str, port: int) -> WSGIServer:
    """Answer on `host` and `port` from a thread that ends with the process."""
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, application(health), kind, _Silent)
    threading.Thread(target=server.serve_forever, name="ops", daemon=True).start()
    return server
