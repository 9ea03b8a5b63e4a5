"""Where the machine's time goes: CPU seconds of each process between two moments."""

from contextlib import suppress

import psutil

from suite.stand import Stand

Seconds = dict[str, float]


def spent(process: psutil.Process) -> float:
    """CPU seconds of a process so far; 0 where it has ended."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _machine() -> dict[str, float]:
    """Seconds of both cores: in processes, in interrupts, and taken by the machine's host."""
    times = psutil.cpu_times()
    return {
        "processes": times.user + times.nice + times.system,
        "interrupts": times.irq + times.softirq,
        "stolen by the host": times.steal,
    }


class Meter:
    """CPU seconds since it was made."""

    def __init__(self, stand: Stand) -> None:
        self._groups: dict[str, list[psutil.Process]] = {
            "ingest": [psutil.Process(stand.pid("ingest"))],
            "mosquitto": [stand.mosquitto()],
            "postgres, ingest's": [psutil.Process(pid) for pid in stand.backends_of_ingest()],
            "postgres, rest": self._other_backends(stand),
            "broker": [psutil.Process(stand.pid("broker"))],
            "suite": [psutil.Process()],
        }
        self._before = {name: self._sum(name) for name in self._groups}
        self._machine = _machine()

    @staticmethod
    def _other_backends(stand: Stand) -> list[psutil.Process]:
        own = set(stand.backends_of_ingest())
        server = psutil.Process(stand.server.pid)
        return [server, *(child for child in server.children() if child.pid not in own)]

    def _sum(self, name: str) -> float:
        return sum(spent(process) for process in self._groups[name])

    def read(self, publisher_s: float) -> Seconds:
        """CPU seconds by group, and what else the machine was busy with."""
        used = {name: self._sum(name) - before for name, before in self._before.items()}
        used = {"publisher": publisher_s, **used}
        machine = {name: value - self._machine[name] for name, value in _machine().items()}
        used["other processes"] = max(0.0, machine.pop("processes") - sum(used.values()))
        used |= machine
        return {name: round(seconds, 2) for name, seconds in used.items()}
