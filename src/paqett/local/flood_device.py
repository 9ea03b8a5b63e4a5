"""One of a flood's devices: its connection, and how far its packets have gone."""

import socket
import ssl
from contextlib import suppress

from paqett.local.shape import Packets

PUBACK_BYTES = 4


class Device:
    """One connection, and how far it has come."""

    __slots__ = (
        "_data", "_earlier", "_packets", "_tls", "acknowledged", "conn", "end", "lost", "name",
        "position", "sent", "total",
    )  # fmt: skip

    def __init__(self, name: str, conn: socket.socket, packets: Packets, messages: int) -> None:
        self.name = name
        self._packets = packets
        self._data = memoryview(packets.data)
        self.total = messages
        self.sent = 0  # messages handed over, the last one perhaps in part
        self._earlier = 0  # messages acknowledged on earlier connections
        self.begin(conn)

    def begin(self, conn: socket.socket) -> None:
        """Go on over `conn` behind the last message that was acknowledged."""
        conn.setblocking(False)
        self.conn = conn
        self._tls = isinstance(conn, ssl.SSLSocket)
        self.lost = False
        self._earlier = self.sent
        self.acknowledged = 0  # bytes of acknowledgements, on this connection
        self.position = self.end = self.sent * self._packets.size  # bytes sent, and to be sent

    @property
    def unacknowledged(self) -> int:
        """Messages."""
        return self.sent - self._earlier - self.acknowledged // PUBACK_BYTES

    def lose(self) -> int:
        """The connection is gone: how many messages are to be sent again."""
        with suppress(OSError):
            self.read()  # what came before its end counts
        again = self.unacknowledged
        self.sent -= again
        self.lost = True
        self.conn.close()
        return again

    def read(self) -> None:
        """Count what acknowledgements have come; over TLS each is a record of its own."""
        try:
            while data := self.conn.recv(65_536):
                self.acknowledged += len(data)
                if len(data) < 65_536 and not self._tls:
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        raise ConnectionError("the broker closed a device's connection")

    def hand_over(self, messages: int, stamp_us: int = 0) -> None:
        """Send the next `messages`, and what an earlier send left."""
        if stamp_us:
            for number in range(self.sent, self.sent + messages):
                self._packets.stamp(number, stamp_us + number - self.sent)
        self.sent += messages
        self.end += messages * self._packets.size
        try:
            self.position += self.conn.send(self._data[self.position : self.end])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return

    def close(self) -> None:
        """DISCONNECT, so that the broker's log stays quiet."""
        self.conn.setblocking(True)
        self.conn.sendall(b"\xe0\x00")
        self.conn.close()
