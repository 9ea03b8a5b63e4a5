"""The fake's listener: API and pages on one loopback port, one request at a time."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from paqett.local.fake_stripe import pages
from paqett.local.fake_stripe.api import Api
from paqett.local.fake_stripe.objects import Json, error
from paqett.local.fake_stripe.state import FakeStripe
from paqett.local.fake_stripe.webhooks import Switches, Webhooks

_MOST_BYTES = 1 << 20
_LOOK_FOR_END_S = 0.02
Reply = tuple[int, str, bytes, str | None]  # status, type, body, where to


class Trouble(msgspec.Struct):
    """What goes wrong with requests: answers come late, or are 500 where `down`."""

    latency_s: float = 0.0
    down: bool = False


class Server:
    """Serves in threads of its own between `with` and its end.

    `fake` is its state, `requests` what was asked of the API, and the bodies of it.
    """

    def __init__(
        self, secret_key: str, port: int = 0, *, clock: Callable[[], float] = time.time,
        webhooks: Webhooks | None = None, file: Path | None = None,
    ) -> None:  # fmt: skip
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer.handle(self)

            def do_POST(self) -> None:
                outer.handle(self)

            def do_DELETE(self) -> None:
                outer.handle(self)

            def log_message(self, *_: Any) -> None:
                """Quiet: requests hold secrets."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._webhooks, self._file, self._lock = webhooks, file, threading.Lock()
        self.trouble, self.requests = Trouble(), list[str]()
        self.fake = FakeStripe(self.url, clock)
        if webhooks is not None:
            self.fake.on_event = webhooks.put
        if file is not None and file.exists():
            self.fake.restore(json.loads(file.read_text()))
        self._api = Api(self.fake, secret_key)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(_LOOK_FOR_END_S,), daemon=True
        )

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self._webhooks is not None:
            self._webhooks.close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Any request."""
        body = request.rfile.read(min(_MOST_BYTES, int(request.headers.get("Content-Length", 0))))
        place, text = urlsplit(request.path), body.decode("utf-8", "replace")
        if place.path.startswith("/v1/"):
            reply = self._ask(request, place.path, text or place.query)
        else:
            with self._lock:
                reply = self._page(request.command, place.path, dict(parse_qsl(text)))
                self._save()
        status, kind, answer, location = reply
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(answer)))
        if location is not None:
            request.send_header("Location", location)
        request.end_headers()
        request.wfile.write(answer)

    def _ask(self, request: BaseHTTPRequestHandler, path: str, form: str) -> Reply:
        with self._lock:
            self.requests.append(f"{request.command} {path} {form}")
            if self.trouble.down:
                status, found = 500, error("api_error", "Something is wrong here.")
            else:
                headers = {name.title(): value for name, value in request.headers.items()}
                status, found = self._api.answer(request.command, path, form, headers)
            answer = json.dumps(found).encode()
            self._save()
        time.sleep(self.trouble.latency_s)
        return status, "application/json", answer, None

    def _page(self, method: str, path: str, sent: dict[str, str]) -> Reply:
        *_, kind, name = ["", "", *path.strip("/").split("/")]
        if kind == "pay" and name in self.fake.checkouts:
            return self._checkout(method, self.fake.checkouts[name], sent)
        if kind == "session" and name in self.fake.portals:
            return self._portal(method, path, self.fake.portals[name], sent)
        if path == "/" and self._webhooks is not None:
            if method == "POST":
                self._webhooks.switches = _switches(sent)
            return _html(pages.switches(self.fake, self._webhooks.switches))
        return _html(pages.page("Not found", ""), 404)

    def _checkout(self, method: str, session: Json, sent: dict[str, str]) -> Reply:
        self.fake.expire_checkouts()
        declined = method == "POST" and sent.get("card") != "4242424242424242"
        if method == "POST" and self.fake.pay(session["id"], declined=declined) is not None:
            return _to(session["success_url"])
        return _html(pages.checkout(self.fake, session, declined=declined))

    def _portal(self, method: str, path: str, session: Json, sent: dict[str, str]) -> Reply:
        one = self.fake.subscriptions.get(sent.get("subscription", ""))
        if method == "POST" and one is not None and one["customer"] == session["customer"]:
            _act(self.fake, one["id"], sent.get("do", ""))
            return _to(path)
        return _html(pages.portal(self.fake, session))

    def _save(self) -> None:
        if self._file is not None:
            draft = self._file.with_suffix(".new")
            draft.write_text(json.dumps(self.fake.dump()))
            draft.replace(self._file)


def _act(fake: FakeStripe, subscription: str, action: str) -> None:
    acts: dict[str, Callable[[], None]] = {
        "cancel_later": lambda: fake.cancel_later(subscription),
        "keep": lambda: fake.keep(subscription),
        "cancel": lambda: fake.cancel(subscription),
        "settle": lambda: fake.settle(subscription),
        "renew": lambda: fake.renew(subscription),
        "decline": lambda: fake.renew(subscription, declined=True),
        "give_up": lambda: fake.cancel(subscription, "payment_failed"),
        "end_period": lambda: fake.end_period(subscription),
    }
    if action in acts:
        acts[action]()


def _switches(sent: dict[str, str]) -> Switches:
    try:
        copies, delay_s = int(sent.get("copies", 1)), float(sent.get("delay_s", 0))
    except ValueError:
        copies, delay_s = 1, 0.0
    return Switches(
        max(1, min(9, copies)), max(0.0, min(600.0, delay_s)),
        "reorder" in sent, "lose" in sent, "bad_signature" in sent,
    )  # fmt: skip


def _html(text: str, status: int = 200) -> Reply:
    return status, "text/html; charset=utf-8", text.encode(), None


def _to(place: str) -> Reply:
    return 303, "text/plain", b"", place
