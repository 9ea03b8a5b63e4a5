"""Certificates as those who connect will judge them, by a handshake in memory."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paqett import certificates
from paqett.doctor.findings import Finding
from paqett.settings import Settings

_SOON = timedelta(days=14)
_STEPS = 10  # of a handshake; it takes three
_WRONG = {  # OpenSSL's X509_V_ERR_…
    9: ("is not good yet", "look at this machine's clock, or wait"),
    10: ("has expired", "renew it; what renews it should do so by itself"),
    62: ("is for another name than {name}", "get one for {name}, or mend the setting of the name"),
    64: ("is for another name than {name}", "get one for {name}, or mend the setting of the name"),
}
_NO_NAMES = ("", "0.0.0.0", "::")  # noqa: S104 - what a listener may be bound to


def examine_tls(settings: Settings, now: datetime) -> list[Finding]:
    """One finding for each listener's certificate; none where there is none."""
    http, broker = settings.http, settings.broker
    asked = [
        (
            "tls http",
            http.tls_cert_file,
            http.tls_key_file,
            str(urlsplit(settings.public_url).hostname),
        ),
        ("tls mqtt", broker.tls_cert_file, broker.tls_key_file, settings.devices_host),
    ]
    return [_judged(subject, cert, key, name, now) for subject, cert, key, name in asked if cert]


def _judged(subject: str, cert: str, key: str, name: str, now: datetime) -> Finding:
    try:
        server = certificates.load(cert, key)
        open_to = Path(key or cert).stat().st_mode & 0o007
    except ssl.SSLError as error:
        detail = f"{cert} and {key or 'the key in it'}: {error.reason or 'not PEM'}"
        mend = "the key must be the certificate's own, both PEM, the key not encrypted"
        return Finding(subject, "failed", detail, mend)
    except OSError as error:
        mend = "mend the path, or let this process's user read it"
        return Finding(subject, "failed", str(error), mend)
    if open_to:
        return Finding(subject, "failed", f"{key or cert} is open to everybody", "chmod 0640")
    if name in _NO_NAMES:
        detail = f"{cert}: nothing says under which name people connect"
        return Finding(subject, "warning", detail, "set paqett.public_url (or broker.public_host)")
    return _shown_to(subject, cert, server, name, now)


def _shown_to(subject: str, cert: str, server: ssl.SSLContext, name: str, now: datetime) -> Finding:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(cert)
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        shown = _handshake(server, trusting, name)
    except ssl.SSLCertVerificationError as error:
        said, mend = _WRONG.get(
            error.verify_code, (error.verify_message, "get another certificate")
        )
        detail = f"{cert} {said.format(name=name)}"
        return Finding(subject, "failed", detail, mend.format(name=name))
    except (ssl.SSLError, ValueError) as error:  # a name that is none, a key nobody agrees to
        detail = f"{cert} cannot be shown for {name}: {error}"
        return Finding(subject, "failed", detail, "mend the setting of the name, or the pair")
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    detail = f"for {name}, until {until:%Y-%m-%d}"
    if until - now < _SOON:
        mend = "renew it; what renews it should do so by itself"
        return Finding(subject, "warning", detail, mend)
    return Finding(subject, "ok", detail + _vouched(server, name))


def _vouched(server: ssl.SSLContext, name: str) -> str:
    """Whether a stranger would believe it: a private authority is fine where devices know it."""
    try:
        _handshake(server, ssl.create_default_context(), name)
    except ssl.SSLCertVerificationError:
        return (
            "; no authority this machine knows vouches for it, or its file lacks the chain:"
            " devices and browsers must be given what does"
        )
    return ""


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, Any]:
    """What the client is shown. Raises `ssl.SSLCertVerificationError`."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(down, up, server_hostname=name)
    other = server.wrap_bio(up, down, server_side=True)
    for step in range(_STEPS):
        side = (one, other)[step % 2]
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return one.getpeercert() or {}
