"""Many devices in one process, each with a connection that it makes anew when it is lost.

    python -m suite.crowd

Reads one JSON line, the job, connects everybody and prints `{}` once each has had a message
acknowledged. Then each line of standard input is a command, answered with one JSON line:

- `storm`: every connection is dropped and made anew, all at once; answered when every device is
  connected and has had a message acknowledged;
- `wait`: the same, but somebody else drops them;
- `how`: what has been published and acknowledged so far.

A device publishes whenever it has connected, and every `interval_s` besides. What was not
acknowledged on a lost connection is sent again, with the time it had. A refused or broken attempt
is repeated after a second, two, four, at most eight, each shortened at random by up to half.
"""

import heapq
import json
import math
import os
import random
import resource
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from paqett.local.packets import connect_packet, publish_packet

_LONGEST_S = 8.0
_ATTEMPT_S = 10.0  # as ESP-IDF's client does
_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>
_ADDRESSES = 200  # of loopback, as sources: one has too few ports for two storms in a minute
_PERIOD_S = 240.0
_CONNACK_BYTES = 4


@dataclass(frozen=True)
class Job:
    """Devices and their secrets; everybody publishes every `interval_s`, 0 for never."""

    devices: list[tuple[str, str]]
    port: int
    interval_s: float


class Device:
    """One of the crowd: what it has not been told to be received yet, and its connection."""

    __slots__ = (
        "attempts", "conn", "fresh", "id", "phase", "secret", "since", "unacknowledged", "up",
    )  # fmt: skip

    def __init__(self, device_id: str, secret: str) -> None:
        self.id, self.secret = device_id, secret
        self.phase = random.uniform(0, 2 * math.pi)
        self.conn: socket.socket | None = None
        self.up = self.fresh = False
        self.attempts, self.since = 0, 0.0
        self.unacknowledged: deque[bytes] = deque()

    def message(self) -> bytes:
        """A reading of three metrics, of now; the first goes up and down."""
        now = time.time_ns() // 1000
        angle = 2 * math.pi * (now / 1e6 % _PERIOD_S) / _PERIOD_S + self.phase
        body = b'{"ts":%d,"temperature":%.1f,"humidity":40.5,"battery":97.0}' % (
            now, 20 + 10 * math.sin(angle)
        )  # fmt: skip
        return publish_packet(f"paqett/v1/{self.id}/telemetry", body, 1, random.randint(1, 65_535))


class Crowd:
    """The loop over all connections."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._devices = [Device(*device) for device in job.devices]
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._by_file: dict[int, Device] = {}
        self._due: list[tuple[float, int, str]] = []  # when, which device, what
        self._up = self._fresh = 0
        self._published = self._acknowledged = self._failed = self._lost = 0
        self._began: float | None = None
        self._connected_s: float | None = None
        self._inbox = b""

    def run(self) -> None:
        """Until standard input ends."""
        self._begin()
        for number in range(len(self._devices)):
            self._later(0, number, "connect")
        while True:
            pause = max(0.0, min(1.0, self._due[0][0] - time.monotonic())) if self._due else 1.0
            for file, events in self._poll.poll(pause, 4096):
                if file == 0:
                    self._command()
                elif device := self._by_file.get(file):
                    self._serve(device, events)
            self._do_what_is_due()
            self._tell_when_back()

    def _later(self, seconds: float, number: int, what: str) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, number, what))

    def _do_what_is_due(self) -> None:
        now, served = time.monotonic(), 0
        while self._due and self._due[0][0] <= now and served < 1000:
            _, number, what = heapq.heappop(self._due)
            served += 1
            device = self._devices[number]
            if what == "connect":
                self._connect(device, number)
            elif what == "give up":
                if device.conn is not None and not device.up and now - device.since > _ATTEMPT_S:
                    self._lose(device)
            else:
                if device.up and not device.unacknowledged:
                    self._publish(device, device.message())
                self._later(self._job.interval_s, number, "publish")

    def _connect(self, device: Device, number: int) -> None:
        if device.conn is not None:
            return
        if not device.attempts and not device.since and self._job.interval_s:
            self._later(random.uniform(0, self._job.interval_s), number, "publish")
        device.attempts += 1
        device.since = time.monotonic()
        conn = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        conn.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.bind((f"127.0.0.{2 + random.randrange(_ADDRESSES)}", 0))
        conn.connect_ex(("127.0.0.1", self._job.port))
        device.conn = conn
        self._by_file[conn.fileno()] = device
        self._poll.register(conn, select.EPOLLOUT)
        self._later(_ATTEMPT_S, number, "give up")

    def _serve(self, device: Device, events: int) -> None:
        assert device.conn is not None
        try:
            if events & select.EPOLLOUT:
                device.conn.send(connect_packet(device.id, device.secret))
                self._poll.modify(device.conn, select.EPOLLIN)
                return
            data = device.conn.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._lose(device)
        elif device.up:
            self._hear(device, len(data) // 4)
        else:
            self._welcome(device, data)

    def _welcome(self, device: Device, data: bytes) -> None:
        if len(data) < _CONNACK_BYTES or data[3]:
            self._lose(device)
            return
        device.up, device.attempts = True, 0
        self._up += 1
        again, device.unacknowledged = device.unacknowledged, deque()
        for packet in again:
            self._publish(device, packet, again=True)
        self._publish(device, device.message())

    def _publish(self, device: Device, packet: bytes, *, again: bool = False) -> None:
        assert device.conn is not None
        device.unacknowledged.append(packet)
        self._published += not again
        try:
            device.conn.send(packet)
        except OSError:
            self._lose(device)

    def _hear(self, device: Device, acknowledgements: int) -> None:
        for _ in range(min(acknowledgements, len(device.unacknowledged))):
            device.unacknowledged.popleft()
            self._acknowledged += 1
        if not device.fresh and not device.unacknowledged:
            device.fresh = True
            self._fresh += 1

    def _lose(self, device: Device, *, at_once: bool = False) -> None:
        """The connection is gone; another attempt is due."""
        if device.conn is None:
            return
        self._poll.unregister(device.conn)
        del self._by_file[device.conn.fileno()]
        device.conn.close()
        device.conn = None
        if device.up:
            self._up -= 1
            self._lost += 1
        elif not at_once:
            self._failed += 1
        if device.fresh:
            self._fresh -= 1
        device.up = device.fresh = False
        self._connected_s = None  # not everybody is back
        pause = 0.0
        if device.attempts:
            pause = min(_LONGEST_S, 2.0 ** (device.attempts - 1)) * random.uniform(0.5, 1)
        self._later(0 if at_once else pause, self._number(device), "connect")

    def _number(self, device: Device) -> int:
        if not hasattr(self, "_numbers"):
            self._numbers = {one.id: number for number, one in enumerate(self._devices)}
        return self._numbers[device.id]

    def _begin(self) -> None:
        self._began, self._connected_s = time.monotonic(), None
        self._failed = 0
        for device in self._devices:
            device.fresh = False
        self._fresh = 0

    def _tell_when_back(self) -> None:
        if self._began is None:
            return
        passed = round(time.monotonic() - self._began, 3)
        if self._connected_s is None and self._up == len(self._devices):
            self._connected_s = passed
        if self._fresh == len(self._devices):
            self._began = None
            self._tell(
                connected_s=self._connected_s or passed, acknowledged_s=passed, failed=self._failed
            )

    def _tell(self, **values: Any) -> None:
        os.write(1, json.dumps(values).encode() + b"\n")

    def _command(self) -> None:
        data = os.read(0, 4096)
        if not data:
            raise SystemExit
        self._inbox += data
        *lines, self._inbox = self._inbox.split(b"\n")
        for line in lines:
            if line == b"storm":
                self._begin()
                linger = b"\1\0\0\0\0\0\0\0"  # an end without a goodbye
                for device in self._devices:
                    if device.conn is not None:
                        device.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        self._lose(device, at_once=True)
            elif line == b"wait":
                self._begin()
            else:
                self._tell(
                    published=self._published, acknowledged=self._acknowledged, up=self._up,
                    lost=self._lost,
                )  # fmt: skip


def main() -> None:
    """Take the job from standard input and do it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    line = bytearray()
    while not line.endswith(b"\n"):  # unbuffered: commands are read by their descriptor
        line += os.read(0, 1 << 20) or sys.exit("no job")
    values = json.loads(line)
    values["devices"] = [tuple(device) for device in values["devices"]]
    Crowd(Job(**values)).run()


if __name__ == "__main__":
    main()
