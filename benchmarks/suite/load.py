"""One load against a stand: publish, wait for the commit of the last, compare what is stored."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from paqett.local.flood import Job
from paqett.local.flooding import FloodFailed, flooding, follow
from paqett.local.shape import Shape
from suite.cpu import Meter, Seconds
from suite.stand import BenchmarkError, Stand


@dataclass(frozen=True)
class Load:
    """How to publish a number of messages, all devices together."""

    shape: Shape
    messages: int
    qos: int = 1
    tls: bool = False
    rate: float = 0.0
    spare_devices: int = 0  # the last ones, left out of the load and of its figures


@dataclass(frozen=True)
class Run:
    """What came of it. `held` is the share of the time in which the backlog held the fleet back."""

    messages: int
    rows: int
    stored: int
    seconds: float
    publish_seconds: float
    rows_per_second: float
    messages_per_second: float
    held: float
    cpu_seconds: Seconds

    def report(self) -> dict[str, Any]:
        """For the results."""
        return {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "publish_seconds": round(self.publish_seconds, 3),
            "rows_per_second": round(self.rows_per_second),
            "messages_per_second": round(self.messages_per_second),
            "held": round(self.held, 3),
        }


@contextmanager
def publisher(stand: Stand, load: Load, each: int) -> Iterator[subprocess.Popen[bytes]]:
    """The publisher's process, connected and ready; killed if the run fails."""
    devices = stand.devices[: len(stand.devices) - load.spare_devices]
    job = Job(
        devices=[(device.id, device.secret) for device in devices],
        port=stand.ports["tls" if load.tls else "plain"],
        messages=each,
        shape=load.shape,
        qos=load.qos,
        rate=load.rate,
        stamped=load.rate > 0,
        ca_file=str(stand.ca_file) if load.tls else "",
    )
    with _told(stand), flooding(job) as child:
        yield child


@contextmanager
def _told(stand: Stand) -> Iterator[None]:
    """What went wrong, with the processes' logs."""
    try:
        yield
    except FloodFailed as error:
        raise BenchmarkError(f"{error}\n{stand.log_tail()}") from None


class _Commits:
    """Follows what is committed; knows when it last grew."""

    def __init__(self, stand: Stand, without: list[str]) -> None:
        self._stand = stand
        self._without = without
        self._base = stand.committed_messages(without)
        self.messages = 0
        self.grew_ns = time.monotonic_ns()

    def look(self) -> int:
        now = self._stand.committed_messages(self._without) - self._base
        if now > self.messages:
            self.messages, self.grew_ns = now, time.monotonic_ns()
        return now

    @property
    def still_s(self) -> float:
        return (time.monotonic_ns() - self.grew_ns) / 1e9


def drive(stand: Stand, load: Load, started: Callable[[], object] = bool) -> Run:
    """Do it; `started` is called right before the clock starts.

    Raises `BenchmarkError` where the database does not hold what was published. At QoS 0
    a message may be lost; then the run says so in `stored`.
    """
    devices = len(stand.devices) - load.spare_devices
    spare = [device.id for device in stand.devices[devices:]]
    each = load.messages // devices
    total = each * devices
    expected = load.shape.distinct(each) * devices * load.shape.points
    with publisher(stand, load, each) as child:
        stand.clear()
        already = stand.count_rows(spare)
        started()
        commits, meter = _Commits(stand, spare), Meter(stand)
        done = follow(child, commits, total, patient=load.qos > 0)
        cpu = meter.read(done["cpu_s"])
    stored = stand.count_rows(spare) - already
    if stored != expected and (load.qos or stored > expected):
        raise BenchmarkError(f"{expected} rows were published, {stored} stored")
    seconds = (commits.grew_ns - done["first_ns"]) / 1e9
    rows = total * load.shape.points
    publish_s = (done["last_ns"] - done["first_ns"]) / 1e9
    return Run(
        messages=total,
        rows=rows,
        stored=stored,
        seconds=seconds,
        publish_seconds=publish_s,
        rows_per_second=(rows if load.qos else stored) / seconds,
        messages_per_second=commits.messages / seconds,
        held=done["held_s"] / publish_s,
        cpu_seconds=cpu,
    )
