"""Start processes, start them again when they die, and stop them in order."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from paqett import log
from paqett.children import die_with_parent

_logger = log.get("up")


class Program(msgspec.Struct):
    """A process to keep alive; `start` makes it anew. `stop_signal` asks it to end."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    stop_signal: int = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0


def command(
    argv: list[str], environ: dict[str, str], log_file: Path
) -> Callable[[], subprocess.Popen[bytes]]:
    """A starter for one of our own processes: a session of its own, output to its log."""

    def start() -> subprocess.Popen[bytes]:
        with log_file.open("ab") as out:
            return subprocess.Popen(
                argv,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    return start


class Supervisor:
    """The programs in the order they start; they stop in the order given to `stop`."""

    def __init__(self, on_change: Callable[[dict[str, int]], None]) -> None:
        self._programs: list[Program] = []
        self._on_change = on_change

    def add(self, program: Program) -> None:
        """Start `program` and keep it."""
        self._programs.append(program)
        self._start(program)

    def _start(self, program: Program) -> None:
        program.process = program.start()
        program.started_at = time.monotonic()
        self._on_change(self.pids())

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {p.name: p.process.pid for p in self._programs if p.process is not None}

    async def watch(self, stop: asyncio.Event) -> None:
        """Restart what dies, at once the first time and then up to 5 s later, until `stop`."""
        while not stop.is_set():
            for program in self._programs:
                if program.process is None or program.process.poll() is None:
                    continue
                alive_s = time.monotonic() - program.started_at
                program.failures = 0 if alive_s > 30 else program.failures + 1
                if alive_s < min(5.0, program.failures * 0.5):
                    continue
                _logger.warning(
                    "restarting", program=program.name, exit_code=program.process.returncode
                )
                self._start(program)
            await asyncio.sleep(0.1)

    def stop(self, order: tuple[str, ...], timeout_s: float = 20.0) -> None:
        """Ask each to end in `order` and wait for it; kill what does not."""
        by_name = {program.name: program for program in self._programs}
        for name in order:
            program = by_name.get(name)
            if program is None or program.process is None or program.process.poll() is not None:
                continue
            program.process.send_signal(program.stop_signal)
            try:
                program.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _logger.error("killed: it did not stop", program=name)
                program.process.kill()
                program.process.wait()
