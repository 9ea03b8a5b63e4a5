"""As much of MQTT 3.1.1 as a publisher needs: packets as bytes, and one way to connect.

Standard library alone, so that the publisher's process is small.
"""

import socket
import ssl

HOST = "127.0.0.1"


class Refused(Exception):
    """The broker did not let a device in."""


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def _framed(first: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        length.append(digit | 0x80 if left else digit)
        if not left:
            return bytes((first,)) + bytes(length) + body


def connect_packet(client_id: str, secret: str, username: str = "") -> bytes:
    """CONNECT, a clean session, no keep-alive; without a user name the id is it."""
    flags = 0b1100_0010
    body = _text("MQTT") + bytes((4, flags, 0, 0))
    return _framed(0x10, body + _text(client_id) + _text(username or client_id) + _text(secret))


def publish_packet(topic: str, payload: bytes, qos: int, packet_id: int) -> bytes:
    """PUBLISH at QoS 0 or 1; at QoS 0 there is no packet id."""
    number = packet_id.to_bytes(2, "big") if qos else b""
    return _framed(0x30 | qos << 1, _text(topic) + number + payload)


def open_connection(
    port: int, device_id: str, secret: str, tls: ssl.SSLContext | None = None,
    username: str = "",
) -> socket.socket:  # fmt: skip
    """A blocking socket with CONNACK read. Raises `Refused` and `OSError`."""
    conn = socket.create_connection((HOST, port), timeout=10)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if tls is not None:
            conn = tls.wrap_socket(conn, server_hostname="localhost")
        conn.sendall(connect_packet(device_id, secret, username))
        answer = b""
        while len(answer) < 4:
            data = conn.recv(4 - len(answer))
            if not data:
                raise Refused("closed before CONNACK")
            answer += data
        if answer[3]:
            raise Refused(f"CONNACK {answer[3]}")
    except BaseException:
        conn.close()
        raise
    return conn
