"""How a webhook is called: signed, to a checked address, once. httpx's only home beside sign-in.

The name is resolved once, every address it has is checked, and the connection goes to one of those
very addresses, so that a name that answers differently a moment later changes nothing. Redirects
are not followed, proxies of the environment are not used, the answer's body is not read.
"""

import asyncio
import hmac
import socket
import ssl
import time
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx
import msgspec

from paqett import __version__
from paqett.errors import Invalid, PaqettError

SIGNATURE, DELIVERY, EVENT = "Paqett-Signature", "Paqett-Delivery", "Paqett-Event"
_LONGEST_URL = 2000
_PORTS_BELOW_1024 = frozenset({443})
_NAT64 = IPv6Network("64:ff9b::/96")
# The cloud's own server of this one lies among public addresses.
_METADATA = frozenset({"168.63.129.16"})

_Address = IPv4Address | IPv6Address


class Blocked(PaqettError):
    """The name leads where no webhook may go; says where."""


class Call(msgspec.Struct, frozen=True):
    """One request: `id` stays the same for every attempt, `secrets` sign it, the newest first."""

    url: str
    id: str
    event: str
    body: bytes
    secrets: list[str]


class Answer(msgspec.Struct, frozen=True):
    """What became of it: the status, or what went wrong; `ms` is how long it took."""

    status: int | None
    error: str | None
    ms: int

    @property
    def good(self) -> bool:
        """Whether the receiver has taken it."""
        return self.error is None


def check_url(url: str, *, allow_private: bool) -> None:
    """Raises `Invalid` for an address no webhook may have; what its name leads to shows later."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise Invalid("url is not a URL.", field="url") from None
    if (
        len(url) > _LONGEST_URL
        or not url.isascii()
        or any(c <= " " or c in '\\"<>^`{|}' for c in url)
    ):
        raise Invalid("url is at most 2,000 printable ASCII characters.", field="url")
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise Invalid("url must begin with https://", field="url")
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise Invalid("url names a host, and neither a user nor a fragment.", field="url")
    if not allow_private and port is not None and port < 1024 and port not in _PORTS_BELOW_1024:
        raise Invalid(f"url may not use port {port}.", field="url")
    try:
        literal = ip_address(host)
    except ValueError:
        return
    if not allow_private and not is_public(literal):
        raise Invalid(f"url leads to {literal}, where no webhook may go.", field="url")


def host_of(url: str) -> str:
    """What of a webhook's URL may be told: its path may carry secrets."""
    return urlsplit(url).hostname or ""


def is_public(address: _Address) -> bool:
    """Whether anybody on the internet could be meant: nobody's own network, machine or cloud."""
    if isinstance(address, IPv6Address):
        inside = embedded(address)
        if inside is not None:
            return is_public(inside)
        if address.is_site_local:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and str(address) not in _METADATA
    )


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address a translated, mapped, compatible or 6to4 one stands for."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and low > 1):
        return IPv4Address(low)
    return None


def sign(secrets: list[str], at_s: int, body: bytes) -> str:
    """`t=…,v1=…`: HMAC-SHA-256 of `<t>.<body>` in hex, once for each secret in force."""
    signed = b"%d." % at_s + body
    parts = [hmac.digest(secret.encode(), signed, "sha256").hex() for secret in secrets]
    return ",".join([f"t={at_s}", *(f"v1={part}" for part in parts)])


async def call(what: Call, now: datetime, *, allow_private: bool, timeout_s: float) -> Answer:
    """Make the request; never raises for what the other side does."""
    began = time.monotonic()
    status, error = None, None
    try:
        async with asyncio.timeout(timeout_s):
            status = await _request(what, now, allow_private, timeout_s)
        if not 200 <= status < 300:
            error = f"answered {status}"
            if 300 <= status < 400:
                error += "; redirects are not followed"
    except (Blocked, Invalid) as reason:
        error = str(reason)
    except TimeoutError:
        error = f"no answer within {timeout_s:g} s"
    except OSError as reason:
        error = f"the name is not known ({type(reason).__name__})"
    except httpx.TransportError as reason:
        error = _transport(reason)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
        error = "no HTTP was spoken"
    return Answer(status, error, round((time.monotonic() - began) * 1000))


def _transport(reason: httpx.TransportError) -> str:
    cause: BaseException | None = reason
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "its certificate or TLS is not good"
        cause = cause.__cause__ or cause.__context__
    return f"the connection failed ({type(reason).__name__})"


async def _request(what: Call, now: datetime, allow_private: bool, timeout_s: float) -> int:
    check_url(what.url, allow_private=allow_private)  # the setting may have become stricter
    parts = urlsplit(what.url)
    host = parts.hostname or ""
    address = await _resolve(parts, allow_private)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"Paqett/{__version__}",
        SIGNATURE: sign(what.secrets, int(now.timestamp()), what.body),
        DELIVERY: what.id,
        EVENT: what.event,
    }
    async with httpx.AsyncClient(
        trust_env=False, follow_redirects=False, verify=_tls(), timeout=timeout_s
    ) as client:
        request = client.build_request(
            "POST", _at(parts, address), content=what.body, headers=headers,
            extensions={"sni_hostname": host},
        )  # fmt: skip
        answer = await client.send(request, stream=True)
        await answer.aclose()
        return answer.status_code


def _tls() -> ssl.SSLContext:
    """The machine's own authorities, or those of the environment's SSL_CERT_FILE."""
    return ssl.create_default_context()


def _at(parts: SplitResult, address: _Address) -> str:
    """The URL with the checked address in place of the name."""
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    port = f":{parts.port}" if parts.port is not None else ""
    return urlunsplit((parts.scheme, host + port, parts.path or "/", parts.query, ""))


async def _resolve(parts: SplitResult, allow_private: bool) -> _Address:
    """An address of the name, once all of them are checked. Raises `Blocked`, `OSError`."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(
        parts.hostname, port, type=socket.SOCK_STREAM
    )
    # a link-local address carries its zone
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if not allow_private and not is_public(address):
            raise Blocked(f"{parts.hostname} leads to {address}, where no webhook may go")
    # most hosts that webhooks go to have IPv4, and not every network here has IPv6
    return min(addresses, key=lambda address: address.version)
