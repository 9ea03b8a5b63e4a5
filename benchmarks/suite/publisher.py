"""A fleet in one process: every device its own connection, packets made before the clock starts.

    python -m suite.publisher

Reads one JSON line, the job, connects and encodes, and prints `ready`. Then each line of standard
input is how many messages may have been sent by then, all devices together; the first one starts
the clock. Prints one JSON line at the end.

It takes turns through the connections instead of waiting for events: in its turn a connection
hands over what its window allows in one `send`, and its acknowledgements are read, many at once and
counted by their bytes, only when the window is full. That costs two system calls for each ten or
more messages, so the machine is left to those under measurement.
"""

import gc
import json
import os
import select
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from typing import Any

from suite.mqtt import open_connection
from suite.shape import Packets, Shape

PUBACK_BYTES = 4
_PAUSE_S = 0.001


@dataclass(frozen=True)
class Job:
    """What to publish: `messages` of each device, at most `window` of them unacknowledged.

    At most `burst` messages are sent at once. With a `rate` (messages a second, all devices
    together) messages carry the time they are sent at; without, as many as are allowed go out.
    """

    devices: list[tuple[str, str]]
    port: int
    messages: int
    shape: Shape
    qos: int = 1
    window: int = 40
    burst: int = 10
    rate: float = 0.0
    ca_file: str = ""


class Device:
    """One connection, and how far it has come."""

    __slots__ = (
        "_data", "_packets", "_tls", "acknowledged", "conn", "end", "position", "sent", "total"
    )  # fmt: skip

    def __init__(self, conn: socket.socket, packets: Packets, messages: int) -> None:
        conn.setblocking(False)
        self.conn = conn
        self._tls = isinstance(conn, ssl.SSLSocket)
        self._packets = packets
        self._data = memoryview(packets.data)
        self.total = messages
        self.sent = 0  # messages handed over, the last one perhaps in part
        self.acknowledged = 0  # bytes of acknowledgements
        self.position = self.end = 0  # bytes sent, and to be sent by now

    def read(self) -> None:
        """Count what acknowledgements have come; over TLS each is a record of its own."""
        try:
            while data := self.conn.recv(65_536):
                self.acknowledged += len(data)
                if not self._tls:
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


class Publisher:
    """The turns through the connections."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._total = job.messages * len(job.devices)
        self._sent = self._allowed = self._turn = 0
        self._idle_s = self._held_s = 0.0
        self._devices = _connect(job)

    def run(self) -> dict[str, Any]:
        """Publish everything; returns when the last acknowledgement is in."""
        self._listen(wait=True)
        began, cpu = time.monotonic_ns(), time.process_time()
        turn = self._at_rate if self._job.rate else self._at_will
        while self._sent < self._total:
            self._listen()
            if not turn(began):
                self._rest()
        self._finish()
        return {
            "first_ns": began,
            "last_ns": time.monotonic_ns(),
            "cpu_s": time.process_time() - cpu,
            "idle_s": self._idle_s,
            "held_s": self._held_s,
            "messages": self._sent,
        }

    def _listen(self, *, wait: bool = False) -> None:
        if select.select([0], [], [], None if wait else 0)[0]:
            data = os.read(0, 65_536)
            if not data:
                raise SystemExit("the suite has ended")
            self._allowed = int(data.split()[-1])

    def _rest(self) -> None:
        """Nothing to do: for want of acknowledgements, or of leave."""
        before = time.monotonic()
        time.sleep(_PAUSE_S)
        slept = time.monotonic() - before
        self._idle_s += slept
        if self._allowed - self._sent < self._job.burst:
            self._held_s += slept

    def _room(self, device: Device, wanted: int) -> int:
        """How many messages `device` may send now; reads its acknowledgements if it must."""
        left = device.total - device.sent
        wanted = min(wanted, left)
        if not self._job.qos:
            return wanted if device.position == device.end else 0
        window = self._job.window
        if device.sent - device.acknowledged // PUBACK_BYTES + wanted > window:
            device.read()
            if device.sent - device.acknowledged // PUBACK_BYTES + wanted > window:
                return 0
        return wanted

    def _at_will(self, _began: int) -> bool:
        """One turn of every connection; whether any of them sent."""
        before, burst = self._sent, self._job.burst
        for _ in self._devices:
            if self._allowed - self._sent < min(burst, self._total - self._sent):
                break
            device = self._next()
            count = self._room(device, burst)
            if count or device.position < device.end:
                device.hand_over(count)
                self._sent += count
        return self._sent > before

    def _at_rate(self, began: int) -> bool:
        """As many single messages as are due."""
        before = self._sent
        due = min(self._total, int((time.monotonic_ns() - began) * self._job.rate / 1e9))
        for _ in range(min(due - before, len(self._devices))):
            device = self._next()
            if self._room(device, 1):
                device.hand_over(1, time.time_ns() // 1000)
                self._sent += 1
        return self._sent > before

    def _next(self) -> Device:
        device = self._devices[self._turn]
        self._turn = (self._turn + 1) % len(self._devices)
        return device

    def _finish(self) -> None:
        """Send what is left of the last packets and read the last acknowledgements."""
        owed = PUBACK_BYTES if self._job.qos else 0
        waiting = self._devices
        while waiting:
            for device in waiting:
                if device.position < device.end:
                    device.hand_over(0)
                if device.acknowledged < device.sent * owed:
                    device.read()
            waiting = [
                device
                for device in waiting
                if device.position < device.end or device.acknowledged < device.sent * owed
            ]
            time.sleep(_PAUSE_S if waiting else 0)

    def close(self) -> None:
        """Close every connection."""
        for device in self._devices:
            device.close()


def _connect(job: Job) -> list[Device]:
    tls = None
    if job.ca_file:
        tls = ssl.create_default_context(cafile=job.ca_file)
    sockets = [open_connection(job.port, name, secret, tls) for name, secret in job.devices]
    start_us = time.time_ns() // 1000
    return [
        Device(conn, Packets(name, job.shape, job.messages, start_us, job.qos), job.messages)
        for conn, (name, _) in zip(sockets, job.devices, strict=True)
    ]


def main() -> None:
    """Take the job from standard input and do it."""
    line = bytearray()
    while not line.endswith(b"\n"):  # unbuffered: the lines after it are read by their descriptor
        line += os.read(0, 1 << 20) or sys.exit("no job")
    values = json.loads(line)
    job = Job(**values | {"shape": Shape(**values["shape"])})
    publisher = Publisher(job)
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    done = publisher.run()
    print(json.dumps(done), flush=True)
    publisher.close()


if __name__ == "__main__":
    main()
