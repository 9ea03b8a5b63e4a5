"""No webhook reaches what is private, whatever its name leads to, and what is sent is signed."""

import asyncio
import hmac
import socket
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from paqett import webhooks
from paqett.errors import Invalid
from paqett.webhooks import Answer, Call
from receiver import Receiver

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def call(url: str, *, allow_private: bool = False, timeout_s: float = 5.0) -> Answer:
    what = Call(url, "d1", "alert_firing", b'{"a":1}', ["new", "old"])
    return asyncio.run(webhooks.call(what, NOW, allow_private=allow_private, timeout_s=timeout_s))


PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "2001::1",
    "100::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_reserved_and_metadata_addresses_are_refused_in_every_writing(address) -> None:
    assert not webhooks.is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Invalid):
        webhooks.check_url(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_may_be_called(address) -> None:
    assert webhooks.is_public(ip_address(address))


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "0", "localhost", "LOCALHOST"],
)
def test_what_an_encoded_address_or_a_name_leads_to_is_judged(host, receiver) -> None:
    answer = call(f"https://{host}:{receiver.port}/")
    assert "no webhook may go" in (answer.error or "")
    assert receiver.got == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "ftp://example.org/", "https://", "https://user:pw@example.org/",
        "https://user@example.org/", "https://example.org:22/", "https://example.org:25/",
        "https://example.org:0x50/", "https://example.org:99999/", "https://exa mple.org/",
        "https://example.org/#f", "https://[::1/", "https://ex\u00e4mple.org/",
        "https://example.org\\@127.0.0.1/", "https://example.org/\r\nX: y", "//example.org/", "x",
        "https://example.org/" + "a" * 2000,
    ],
)  # fmt: skip
def test_a_url_that_is_no_plain_https_address_is_refused(url) -> None:
    with pytest.raises(Invalid):
        webhooks.check_url(url, allow_private=False)


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """The names' addresses, another answer each time; what was asked."""
    asked: list[str] = []

    async def getaddrinfo(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_that_answers_differently_the_next_time_is_asked_once(monkeypatch, receiver) -> None:
    connected: list[str] = []

    async def create_connection(_: Any, __: Any, host: str, port: int, **___: Any) -> Any:
        connected.append(host)
        raise ConnectionRefusedError

    asked = _answers(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    answer = call(f"https://rebind.example.org:{receiver.port}/")
    assert not answer.good
    # the checked address itself is what is connected to; whatever is looked up again is that one
    assert asked[0] == "rebind.example.org"
    assert set(asked[1:]) <= {"93.184.215.14"}
    assert receiver.got == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch, receiver) -> None:
    _answers(monkeypatch, ["93.184.215.14", "127.0.0.1"])
    answer = call(f"https://mixed.example.org:{receiver.port}/")
    assert "leads to 127.0.0.1" in (answer.error or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver, status) -> None:
    inside = Receiver()
    receiver.status = status
    receiver.headers = {"Location": f"http://127.0.0.1:{inside.port}/latest/meta-data"}
    answer = call(f"http://127.0.0.1:{receiver.port}/", allow_private=True)
    inside.stop()
    assert answer.error == f"answered {status}; redirects are not followed"
    assert inside.got == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch, receiver) -> None:
    proxy = Receiver()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert call(f"http://127.0.0.1:{receiver.port}/", allow_private=True).good
    proxy.stop()
    assert (len(receiver.got), len(proxy.got)) == (1, 0)


def test_what_is_sent_is_signed_with_its_time_by_every_secret_in_force(receiver) -> None:
    assert call(f"http://localhost:{receiver.port}/hook?x=1", allow_private=True).good
    headers, body = receiver.got[0]
    assert headers["Host"] == f"localhost:{receiver.port}"
    assert (headers["Paqett-Delivery"], headers["Paqett-Event"]) == ("d1", "alert_firing")
    at, *signatures = headers["Paqett-Signature"].split(",")
    assert at == f"t={int(NOW.timestamp())}"
    signed = f"{at[2:]}.".encode() + body
    assert signatures == [
        f"v1={hmac.new(secret, signed, 'sha256').hexdigest()}" for secret in (b"new", b"old")
    ]


def test_a_setting_opens_private_addresses_over_ipv6_too() -> None:
    receiver = Receiver(host="::1")
    assert call(f"http://[::1]:{receiver.port}/", allow_private=True).good
    receiver.stop()
    assert len(receiver.got) == 1


def test_an_answer_that_never_comes_or_never_ends_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = call(
            f"http://127.0.0.1:{silent.getsockname()[1]}/", allow_private=True, timeout_s=0.3
        )
    assert (answer.status, answer.error) == (None, "no answer within 0.3 s")
    endless = Receiver()
    endless.headers = {"Content-Length": str(10**12)}
    assert call(f"http://127.0.0.1:{endless.port}/", allow_private=True, timeout_s=3).good
    endless.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[str], ssl.SSLContext]:
    """Makes a server's certificate for a name, signed by itself; `ca.pem` is the last one's."""

    def make(name: str) -> ssl.SSLContext:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
             "-keyout", "key.pem", "-out", "ca.pem"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
        return context

    return make


@pytest.mark.parametrize(("name", "good"), [("localhost", True), ("other.example.org", False)])
def test_the_certificate_must_be_the_names_own(
    certificates, tmp_path, monkeypatch, name, good
) -> None:
    receiver = Receiver(certificates(name))
    url = f"https://localhost:{receiver.port}/"
    assert call(url, allow_private=True).error == "its certificate or TLS is not good"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    answer = call(url, allow_private=True)
    receiver.stop()
    assert answer.good == good, answer
    assert len(receiver.got) == int(good)
