"""What the doctor learns by asking: real servers on loopback that are well, and that are not."""

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from listening import PORT
from paqett.app import utc_now
from paqett.billing import client as billing
from paqett.broker import files
from paqett.children import die_with_parent, give, service_user
from paqett.doctor import others
from paqett.doctor.findings import Finding
from paqett.doctor.others import examine_others
from paqett.local.fake_stripe.server import Server
from paqett.mqtt import probe
from paqett.plans import load_plans
from paqett.settings import Settings, load
from ports import free_port
from post import Office, Post, certificate

NOT_TRIED = "broker rules"


def asked(settings: Settings) -> list[Finding]:
    async def work() -> list[Finding]:
        plans = load_plans(settings.plans_file).values()
        findings = await examine_others(settings, plans, utc_now)
        await asyncio.sleep(0.1)  # a TLS connection that is given up takes a few rounds to close
        return findings

    return asyncio.run(work())


def found(subject: str, environ: dict[str, str]) -> list[Finding]:
    return [one for one in asked(load(environ)) if one.subject == subject]


def test_where_nothing_is_set_up_nobody_is_asked() -> None:
    (finding,) = asked(load({}))
    assert (finding.subject, finding.state) == (NOT_TRIED, "warning")
    assert "mqtt.password" in finding.detail


# --- the mail server


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_mail_server_that_takes_us_and_one_that_does_not(
    tmp_path: Path, monkeypatch, tls: str
) -> None:
    context, chain = certificate(tmp_path, "localhost")
    post = Post()
    office = Office(post, *((context, None) if tls == "starttls" else (None, context)))
    office.hostname = "localhost"
    office.start()
    well = {
        "PAQETT_MAIL__SMTP_HOST": "localhost", "PAQETT_MAIL__SMTP_PORT": str(office.port),
        "PAQETT_MAIL__SMTP_TLS": tls, "PAQETT_MAIL__SMTP_USERNAME": "paqett",
        "PAQETT_MAIL__SMTP_PASSWORD": "right", "PAQETT_MAIL__TIMEOUT_S": "5",
    }  # fmt: skip
    try:
        (strange,) = found("mail server", well)
        assert (strange.state, "certificate" in strange.detail.lower()) == ("failed", True)
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        (finding,) = found("mail server", well)
        assert (finding.state, "signed in as paqett" in finding.detail) == ("ok", True)
        assert post.raw == [], "nothing is sent"
        (refused,) = found("mail server", well | {"PAQETT_MAIL__SMTP_PASSWORD": "wrong"})
        assert (refused.state, "535" in refused.detail) == ("failed", True)
        assert "wrong" not in str(refused)
        other = {"PAQETT_MAIL__SMTP_TLS": "tls" if tls == "starttls" else "starttls"}
        (deaf,) = found("mail server", well | other | {"PAQETT_MAIL__TIMEOUT_S": "1"})
        assert deaf.state == "failed"
    finally:
        office.stop()
    (away,) = found("mail server", well)
    assert (away.state, "smtp_tls" in away.mend) == ("failed", True)


# --- Stripe


def selling(server: Server, **more: str) -> dict[str, str]:
    return {
        "PAQETT_STRIPE__SECRET_KEY": "sk_test_right", "PAQETT_STRIPE__WEBHOOK_SECRET": "whsec_x",
        "PAQETT_STRIPE__API_BASE": server.url, "PAQETT_STRIPE__TIMEOUT_S": "2", **more,
    }  # fmt: skip


def test_prices_that_are_there_and_that_are_not(monkeypatch) -> None:
    monkeypatch.setattr(billing, "_RETRIES", 0)
    with Server("sk_test_right") as server:
        server.fake.add_price("paqett_paid", 900)
        (finding,) = found("stripe", selling(server))
        assert (finding.state, "prices for paid" in finding.detail) == ("ok", True)
        (strange,) = found("stripe", selling(server, PAQETT_STRIPE__SECRET_KEY="sk_test_wrong"))
        assert (strange.state, "AuthenticationError" in strange.detail) == ("failed", True)
        assert "sk_test_wrong" not in str(strange)
        for price in server.fake.prices.values():
            price["active"] = False
        (lacking,) = found("stripe", selling(server))
        assert (lacking.state, "paqett_paid" in lacking.detail) == ("failed", True)
        assert "stripe_lookup_key" in lacking.mend
        (unsafe,) = found("stripe", selling(server, PAQETT_STRIPE__WEBHOOK_SECRET=""))
        assert (unsafe.state, "webhook_secret" in unsafe.detail) == ("failed", True)
    (away,) = found("stripe", selling(server))
    assert away.state == "failed"


# --- the broker's rules


@contextmanager
def mosquitto(spoil: Callable[[Path], None] | None = None) -> Iterator[dict[str, str]]:
    """On our files, or on what `spoil` made of them."""
    user = service_user("mosquitto")
    with TemporaryDirectory(prefix="paqett-dr-", dir="/var/tmp") as name:
        folder, port = Path(name), free_port(PORT + 200)
        environ = {
            "PAQETT_MQTT__PASSWORD": "writer", "PAQETT_MQTT__PORT": str(port),
            "PAQETT_BROKER__LISTEN_PORT": str(free_port(port + 1)),
        }  # fmt: skip
        settings = load(environ)
        texts = {
            "conf": files.mosquitto_conf(settings.broker, settings.mqtt, folder, user or "nobody"),
            "acl": files.access_list(settings.mqtt.username),
            "passwords": files.password_file([], files.writer_line(settings.mqtt)),
        }
        for file, text in texts.items():
            files.replace(folder / file, text)
        if spoil is not None:
            spoil(folder)
        for path in (folder, *folder.iterdir()):
            give(path, user)
        broker = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(folder / "conf")], stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(signal.SIGKILL, user),
        )  # fmt: skip
        assert broker.stderr is not None
        with broker.stderr as said:
            for line in said:
                if b"running" in line:
                    break
            yield environ
            broker.kill()
            broker.wait()


def _in(file: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return spoil


def test_the_rules_as_we_write_them_hold() -> None:
    with mosquitto() as environ:
        (finding,) = found("broker rules", environ)
        assert finding == Finding(
            "broker rules", "ok", "a device reads and writes its own topics alone (tried)"
        )
        (stranger,) = found("broker rules", environ | {"PAQETT_MQTT__PASSWORD": "another"})
        assert (stranger.state, "refused the sign-in" in stranger.detail) == ("failed", True)
    (away,) = found("broker rules", environ)
    assert (away.state, "paqett broker" in away.mend) == ("failed", True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_in("acl", "pattern read paqett/v1/%u/errors", "pattern read paqett/v1/+/errors"),
         "lets a device read paqett/v1/"),
        (_in("acl", "pattern write paqett/v1/%u/#", "pattern write paqett/v1/#"),
         "lets a device write below another's prefix"),
        (_in("acl", "pattern read paqett/v1/%u/errors", ""),
         "keeps a device from its own errors"),
    ],
)  # fmt: skip
def test_each_rule_that_does_not_hold_is_found(monkeypatch, spoil, says) -> None:
    monkeypatch.setattr(probe, "_PATIENCE_S", 1.0)
    with mosquitto(spoil) as environ:
        (finding,) = found("broker rules", environ)
    assert (finding.state, says in finding.detail, bool(finding.mend)) == ("failed", True, True)


def test_a_broker_that_asks_nobody_who_they_are_is_found() -> None:
    def spoil(folder: Path) -> None:
        _in("conf", f"password_file {folder}/passwords", "")(folder)
        _in("conf", "allow_anonymous false", "allow_anonymous true")(folder)
        _in("conf", "use_username_as_clientid true", "")(folder)

    with mosquitto(spoil) as environ:
        (finding,) = found("broker rules", environ)
    assert finding.state == "failed"
    assert "lets in whoever gives no name; lets in a wrong secret" in finding.detail


def test_another_broker_proves_its_own_rules() -> None:
    (finding,) = found("broker rules", {"PAQETT_MQTT__SHARE_GROUP": "paqett"})
    assert (finding.state, "not Paqett's own" in finding.detail) == ("ok", True)


# --- the public address


class Front:
    """What answers at the public address, over TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(outer.status)
                date = format_datetime(datetime.now(UTC) + outer.ahead, True)
                self.send_header("Date", outer.date or date)
                self.end_headers()
                self.wfile.write(outer.body)
                with suppress(OSError):
                    while outer.drips:
                        self.wfile.write(outer.drop)
                        self.wfile.flush()
                        time.sleep(0.05)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.status, self.body, self.ahead = 200, b"ok\n", timedelta()
        self.date, self.drips, self.drop = "", False, b""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    @property
    def environ(self) -> dict[str, str]:
        port = self.server.server_address[1]
        return {"PAQETT_PAQETT__PUBLIC_URL": f"https://localhost:{port}"}

    def __enter__(self) -> "Front":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_the_public_address_as_people_reach_it(tmp_path: Path, monkeypatch) -> None:
    context, chain = certificate(tmp_path, "localhost")
    with Front(context) as front:
        (strange,) = found("address", front.environ)
        assert (strange.state, "certificate" in strange.detail.lower()) == ("failed", True)
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        (finding,) = found("address", front.environ)
        assert (finding.state, finding.detail.endswith("leads here")) == ("ok", True)
        (clock,) = found("clock", front.environ)
        assert clock.state == "ok"
        for little in (timedelta(seconds=-2), timedelta(seconds=1)):
            front.ahead = little  # a Date has whole seconds, and servers keep theirs for one
            assert found("clock", front.environ)[0].state == "ok"
        front.ahead = timedelta(minutes=5)
        (clock,) = found("clock", front.environ)
        assert (clock.state, "says" in clock.detail) == ("failed", True)
        front.body = b"It works!"
        (other,) = found("address", front.environ)
        assert (other.state, "not as Paqett does" in other.detail) == ("failed", True)
        front.status = 502
        (broken,) = found("address", front.environ)
        assert (broken.state, "502" in broken.detail) == ("failed", True)
    (away,) = found("address", front.environ)
    assert (away.state, "public_url" in away.mend) == ("failed", True)


def test_a_name_that_is_not_the_certificates_is_found(tmp_path: Path, monkeypatch) -> None:
    context, chain = certificate(tmp_path, "other.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    with Front(context) as front:
        (finding,) = found("address", front.environ)
    assert (finding.state, "localhost" in finding.detail) == ("failed", True)


@pytest.mark.parametrize(
    "date",
    ["yesterday", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 -0000", "1, 2, 3"],
)
def test_whatever_the_address_says_of_the_time_is_no_accident_of_ours(
    tmp_path: Path, monkeypatch, date: str
) -> None:
    context, chain = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    with Front(context) as front:
        front.date = date
        (finding,) = found("address", front.environ)
        assert finding.state == "ok"


def test_an_address_that_keeps_us_waiting_or_never_ends_is_given_up(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(others, "_PATIENCE_S", 0.6)
    context, chain = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    with Front(context) as front:
        front.body, front.drips = b"o", True
        (finding,) = found("address", front.environ)
        assert (finding.state, "Timeout" in finding.detail) == ("failed", True)
        front.body, front.drop = b"x", b"x"
        (finding,) = found("address", front.environ)
        assert "not as Paqett does" in finding.detail
        front.drips = False


def test_an_address_that_is_none_is_a_finding() -> None:
    (finding,) = found("address", {"PAQETT_PAQETT__PUBLIC_URL": "https://not a name:1"})
    assert finding.state == "failed"


def test_a_mail_server_that_says_nothing_does_not_hold_the_rest_up(monkeypatch) -> None:
    monkeypatch.setattr(others, "_LONGEST_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (finding,) = found(
            "mail server",
            {
                "PAQETT_MAIL__SMTP_HOST": "127.0.0.1", "PAQETT_MAIL__TIMEOUT_S": "60",
                "PAQETT_MAIL__SMTP_PORT": str(silent.getsockname()[1]),
                "PAQETT_MAIL__SMTP_TLS": "none",
            },
        )  # fmt: skip
    assert (finding.state, "within" in finding.detail) == ("failed", True)
