"""Who is at the other end of a request, as far as the network tells."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from litestar.connection import ASGIConnection

from paqett.throttle import network_of
from paqett.web.visit import visit_of

_LONGEST = 64  # an IPv6 address with its zone
_UNKNOWN = "0.0.0.0"  # noqa: S104 - an address, nothing is bound to it


def client_address(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's IP address; behind a trusted proxy the one the proxy names.

    Always an address: what a proxy wrote instead of one counts as the proxy itself.
    """
    client = connection.client
    return (
        plain_address(client.host if client else "") or visit_of(connection.scope).peer or _UNKNOWN
    )


def client_network(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """What limits count by: the address, or the /64 around an IPv6 one."""
    return network_of(client_address(connection))


def plain_address(text: str) -> str:
    """The address in its one spelling, IPv4 where IPv6 only wraps it; empty where it is none."""
    return _plain(text) if len(text) <= _LONGEST else ""


@lru_cache(4096)
def _plain(text: str) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
