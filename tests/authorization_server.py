"""An authorization server on loopback that checks what GitHub checks, and people who use it."""

import hashlib
import json
import secrets
import threading
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT_ID, CLIENT_SECRET = "paqett-app", "the app's own secret"


class AuthorizationServer:
    """`person` is whoever sits at the browser; `broken` answers tokens with a 500."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {
            "id": 4711,
            "emails": [
                {"email": "spare@example.org", "primary": False, "verified": True},
                {"email": "ada@example.org", "primary": True, "verified": True},
            ],
        }
        self.broken = False
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.get(self)

            def do_POST(self) -> None:
                outer.post(self)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "AuthorizationServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def environ(self) -> dict[str, str]:
        """Settings that lead here."""
        return {
            "PAQETT_GITHUB__CLIENT_ID": CLIENT_ID,
            "PAQETT_GITHUB__CLIENT_SECRET": CLIENT_SECRET,
            "PAQETT_GITHUB__AUTHORIZE_URL": f"{self.url}/authorize",
            "PAQETT_GITHUB__TOKEN_URL": f"{self.url}/token",
            "PAQETT_GITHUB__API_URL": f"{self.url}/api",
        }

    def get(self, request: BaseHTTPRequestHandler) -> None:
        place = urlsplit(request.path)
        asked = {name: values[0] for name, values in parse_qs(place.query).items()}
        if place.path == "/authorize":
            self._authorize(request, asked)
        elif request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            self._answer(request, 401, {"message": "Bad credentials"})
        elif place.path == "/api/user":
            self._answer(request, 200, {"id": self.person["id"], "login": "ada"})
        elif place.path == "/api/user/emails":
            self._answer(request, 200, self.person["emails"])
        else:
            self._answer(request, 404, {})

    def _authorize(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        if asked.get("client_id") != CLIENT_ID or asked.get("code_challenge_method") != "S256":
            self._answer(request, 400, {})
            return
        code = secrets.token_hex(10)
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"]})
        request.send_response(302)
        request.send_header("Location", f"{asked['redirect_uri']}?{back}")
        request.end_headers()

    def post(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["Content-Length"])
        sent = {n: v[0] for n, v in parse_qs(request.rfile.read(length).decode()).items()}
        asked = self.codes.pop(sent.get("code", ""), None)
        if self.broken:
            self._answer(request, 500, {})
        elif asked is None or not self._fits(sent, asked):
            self._answer(request, 200, {"error": "bad_verification_code"})
        else:
            token = secrets.token_hex(20)
            self.tokens.add(token)
            self._answer(request, 200, {"access_token": token, "token_type": "bearer"})

    def _fits(self, sent: dict[str, str], asked: dict[str, str]) -> bool:
        digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
        return (
            sent["client_id"] == CLIENT_ID
            and sent["client_secret"] == CLIENT_SECRET
            and sent["redirect_uri"] == asked["redirect_uri"]
            and urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
        )

    def _answer(self, request: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
