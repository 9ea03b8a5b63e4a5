"""A real Mosquitto of a test's own, with device passwords and nothing else around it."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import gmqtt

from paqett.children import die_with_parent
from paqett.mqtt.credentials import verifier
from paqett.mqtt.publisher import Publisher
from ports import free_port

DEVICE, SECRET = "aDevice", "s" * 43
READER = "reader"
MAX_PACKET = 20_000


class Broker:
    """Mosquitto with a password file, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.port = free_port(52000 + 300 * worker)
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.allow(DEVICE, READER)
        (folder / "acl").write_text(
            f"user {READER}\ntopic read #\npattern write paqett/v1/%u/telemetry\n"
        )
        (folder / "conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nuser root\nlog_dest none\n"
            f"password_file {folder}/passwords\nacl_file {folder}/acl\n"
            f"max_packet_size {MAX_PACKET}\nmax_queued_messages 1000000\n"
        )

    def allow(self, *names: str) -> None:
        lines = "".join(f"{name}:{verifier(SECRET)}\n" for name in names)
        (self.folder / "passwords").write_text(lines)
        (self.folder / "passwords").chmod(0o600)
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        binary = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        assert binary is not None, "mosquitto is not installed"
        self.process = subprocess.Popen(
            [binary, "-c", str(self.folder / "conf")], preexec_fn=die_with_parent(signal.SIGKILL)
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def publisher(self, device: str = DEVICE, secret: str = SECRET, **options: float) -> Publisher:
        return Publisher("127.0.0.1", self.port, device, secret, **options)  # type: ignore[arg-type]

    async def read(self, on_payload: Callable[[bytes], None]) -> gmqtt.Client:
        """Everything devices send, from now on; waits until the broker answers."""
        reader = gmqtt.Client(f"reader-{time.monotonic_ns()}")
        reader.set_auth_credentials(READER, SECRET)
        subscribed = asyncio.Event()
        reader.on_subscribe = lambda *_: subscribed.set()
        reader.on_message = lambda _c, _t, payload, *_: on_payload(payload)
        while True:
            try:
                await reader.connect("127.0.0.1", self.port)
                break
            except OSError:
                await asyncio.sleep(0.05)
        reader.subscribe("paqett/v1/#", qos=1)
        await subscribed.wait()
        return reader
