"""How the platform's client connects to a broker, so that what a killed one had sent is not lost.

What a broker acknowledged to a device lies in its memory, in its kernel or in our socket until it
is read. A broker that is killed takes the first two along: so its kernel is to keep nothing back,
and the socket is read to its end before the connection is called lost.
"""

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import Any

import gmqtt
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.protocol import MQTTProtocol

from paqett import log
from paqett.errors import ConfigurationError
from paqett.settings import Mqtt

_logger = log.get("mqtt")
_SEGMENT_BYTES = 384  # at most ten of the shortest messages, as many as a connection starts with


class _Protocol(MQTTProtocol):  # type: ignore[misc] # gmqtt has no types
    """gmqtt's own, without the stream and the task between the socket and the reader of packets.

    A broker that was killed has acknowledged what still lies in our socket, and forgotten it: that
    is read before the connection is called lost. Where we end the connection it comes again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = b""

    async def _read_loop(self) -> None:
        """Nothing to do: what comes is read at once."""

    def data_received(self, data: bytes) -> None:
        if self._left:
            data = self._left + data
        try:
            self._left = data[self._read_packet(data) :]
        except (ConnectionResetError, ConfigurationError) as error:
            _logger.error("broker not understood", error=str(error))
            self._transport.abort()

    def eof_received(self) -> None:
        """Close: the broker has nothing more to say."""

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._transport.get_extra_info("ssl_object") is None:
            with suppress(OSError):
                while data := os.read(self._transport.get_extra_info("socket").fileno(), 2**18):
                    self.data_received(data)
        super().connection_lost(exc)


class Client(gmqtt.Client):  # type: ignore[misc] # gmqtt has no types
    """gmqtt's own, on a socket of ours and with the protocol above."""

    async def _create_connection(
        self, host: str, port: int, ssl: Any, clean_session: bool, keepalive: int
    ) -> Any:
        state, handler = self._connection_state, self._package_handler
        factory = partial(_Protocol, connection_state=state, id_generator=handler.id_generator)
        sock = await _open_socket(host, port)
        name = host if ssl else None
        try:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=ssl, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        return MQTTConnection(transport, protocol, clean_session, keepalive, handler)


async def _open_socket(host: str, port: int) -> socket.socket:
    """Connect with room for what a broker has sent, and so that its kernel keeps none of it back.

    What waits in a killed broker's kernel is lost. It waits for our kernel's acknowledgements,
    which come at once for each `TCP_MAXSEG` bytes as long as the window we advertise is much
    smaller than the room there is. Setting a low-water mark makes the room, half of what
    `net.ipv4.tcp_rmem` allows, where `SO_RCVBUF` would need privileges. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            _prepare(sock)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError(f"{host} has no address")


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    for mark in (2**31 - 1, 1):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
    room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, room // 8)


def tls_of(settings: Mqtt) -> ssl.SSLContext | None:
    """The context. Raises `ConfigurationError` for a certificate authority that cannot be read."""
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except OSError as error:
        raise ConfigurationError(f"mqtt.tls_ca_file: {settings.tls_ca_file}: {error}") from None
