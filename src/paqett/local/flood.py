"""A fleet in one process: every device its own connection, packets made before the clock starts.

    python -m paqett.local.flood

Reads one JSON line, the job, connects and encodes, and prints `ready`. Then each line of standard
input is how many messages may have been sent by then, all devices together; the first one starts
the clock. The line `how` is answered with the messages acknowledged so far, `end` ends the run
early. Prints one JSON line at the end.

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

from paqett.local.flood_device import Device
from paqett.local.packets import Refused, open_connection
from paqett.local.shape import Packets, Shape

_PAUSE_S = 0.001
_RETRY_S = 0.02
_BACK_S = 120.0


@dataclass(frozen=True)
class Job:
    """What to publish: `messages` of each device, at most `window` of them unacknowledged.

    At most `burst` messages are sent at once. A `rate` is messages a second, all devices together;
    without, as many as are allowed go out. With `stamped` each carries the time it is sent at, else
    its own, whenever it is sent. With `enduring` a lost connection is made anew, and what was not
    acknowledged on it is sent again; without, it ends the run.
    """

    devices: list[tuple[str, str]]
    port: int
    messages: int
    shape: Shape
    qos: int = 1
    window: int = 40
    burst: int = 10
    rate: float = 0.0
    stamped: bool = False
    enduring: bool = False
    ca_file: str = ""


class Publisher:
    """The turns through the connections."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._total = job.messages * len(job.devices)
        self._sent = self._allowed = self._turn = self._again = 0
        self._idle_s = self._held_s = 0.0
        self._away_ns = 0
        self._secrets = dict(job.devices)
        self._context = ssl.create_default_context(cafile=job.ca_file) if job.ca_file else None
        sockets = [self._open(name) for name, _ in job.devices]
        start_us = time.time_ns() // 1000
        self._devices = [
            Device(
                name, conn, Packets(name, job.shape, job.messages, start_us, job.qos), job.messages
            )
            for conn, (name, _) in zip(sockets, job.devices, strict=True)
        ]

    def _open(self, name: str) -> socket.socket:
        return open_connection(self._job.port, name, self._secrets[name], self._context)

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
            "again": self._again,
        }

    def _listen(self, *, wait: bool = False) -> None:
        if select.select([0], [], [], None if wait else 0)[0]:
            data = os.read(0, 65_536)
            if not data:
                raise SystemExit("the suite has ended")
            last = data.split()[-1]
            if last == b"end":
                self._stop()
            elif last == b"how":
                acknowledged = self._sent - sum(device.unacknowledged for device in self._devices)
                os.write(1, b"%d\n" % acknowledged)
            else:
                self._allowed = int(last)

    def _stop(self) -> None:
        """Nothing new from here on."""
        self._total = self._sent
        for device in self._devices:
            device.total = device.sent

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
        if device.unacknowledged + wanted > window:
            device.read()
            if device.unacknowledged + wanted > window:
                return 0
        return wanted

    def _at_will(self, _began: int) -> bool:
        """One turn of every connection; whether any of them sent."""
        before, burst = self._sent, self._job.burst
        for _ in self._devices:
            if self._allowed - self._sent < min(burst, self._total - self._sent):
                break
            self._send(self._next(), burst)
        return self._sent > before

    def _at_rate(self, began: int) -> bool:
        """As many single messages as are due."""
        before = self._sent
        running_ns = time.monotonic_ns() - began - self._away_ns
        due = min(self._total, int(running_ns * self._job.rate / 1e9))
        for _ in range(min(due - before, len(self._devices))):
            self._send(self._next(), 1, time.time_ns() // 1000 if self._job.stamped else 0)
        return self._sent > before

    def _send(self, device: Device, wanted: int, stamp_us: int = 0) -> None:
        """What `device` has room for, and what an earlier send left."""
        try:
            count = self._room(device, wanted)
            if count or device.position < device.end:
                self._sent += count
                device.hand_over(count, stamp_us)
        except OSError as error:
            self._revive(device, error)

    def _revive(self, device: Device, error: OSError) -> None:
        """Connect anew, if the job says so; the broker's absence is no time of the run."""
        if not self._job.enduring:
            raise error
        began_ns = time.monotonic_ns()
        again = device.lose()
        self._sent -= again
        self._again += again
        self._reconnect(device)
        self._away_ns += time.monotonic_ns() - began_ns

    def _reconnect(self, device: Device) -> None:
        deadline = time.monotonic() + _BACK_S
        while device.lost:
            try:
                device.begin(self._open(device.name))
            except (OSError, Refused):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)

    def _next(self) -> Device:
        device = self._devices[self._turn]
        self._turn = (self._turn + 1) % len(self._devices)
        return device

    def _finish(self) -> None:
        """Send what is left of the last packets and read the last acknowledgements."""
        waiting = self._devices
        while waiting:
            for device in waiting:
                self._end(device)
            waiting = [
                device for device in waiting if device.position < device.end or self._owes(device)
            ]
            time.sleep(_PAUSE_S if waiting else 0)

    def _end(self, device: Device) -> None:
        try:
            again = device.total - device.sent  # since a connection was lost
            self._sent += again
            device.hand_over(again)
            if self._owes(device):
                device.read()
        except OSError as error:
            self._revive(device, error)

    def _owes(self, device: Device) -> bool:
        return bool(self._job.qos and device.unacknowledged)

    def close(self) -> None:
        """Close every connection."""
        for device in self._devices:
            device.close()


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
    os.write(1, b"ready\n")
    done = publisher.run()
    os.write(1, json.dumps(done).encode() + b"\n")
    publisher.close()


if __name__ == "__main__":
    main()
