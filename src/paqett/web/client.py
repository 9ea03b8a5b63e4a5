"""Who is at the other end of a request, as far as the network tells."""

from typing import Any

from litestar.connection import ASGIConnection

from paqett.throttle import network_of


def client_address(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's IP address; behind a trusted proxy the one the proxy names."""
    client = connection.client
    return client.host if client else "0.0.0.0"  # noqa: S104 - an address, nothing is bound to it


def client_network(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """What limits count by: the address, or the /64 around an IPv6 one."""
    return network_of(client_address(connection))
