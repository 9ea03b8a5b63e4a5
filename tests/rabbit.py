"""A real RabbitMQ 4 of a test's own, on the configuration that Paqett writes.

`rabbitmq-server` is the one on PATH, or the program that PAQETT_TEST_RABBITMQ names.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx

from paqett.broker import server_files
from paqett.children import die_with_parent
from paqett.settings import Settings
from ports import free_port
from support import with_url

PASSWORD = "platform-" + "p" * 32
_START_S = 90.0


def program() -> str | None:
    """Where the server is, if it is anywhere."""
    return os.environ.get("PAQETT_TEST_RABBITMQ") or shutil.which(
        "rabbitmq-server", path=f"{os.environ['PATH']}:/usr/lib/rabbitmq/bin"
    )


def _beside(found: str, name: str) -> str:
    beside = Path(found).with_name(name)
    return str(beside) if beside.exists() else name


class Rabbit:
    """One server in `folder`; `environ` is what Paqett's processes need to know of it."""

    def __init__(self, folder: Path, api_port: int, first_port: int = 23100) -> None:
        self.folder = folder
        ports = []
        for _ in range(5):
            ports.append(free_port(ports[-1] + 1 if ports else first_port))
        self.port, self.platform_port, self.management_port, self._dist, self._epmd_port = ports
        self.environ = {
            "PAQETT_BROKER__KIND": "rabbitmq",
            "PAQETT_BROKER__LISTEN_PORT": str(self.port),
            "PAQETT_BROKER__AUTH_SECRET": "a" * 40,
            "PAQETT_BROKER__AUTH_URL": f"http://127.0.0.1:{api_port}",
            "PAQETT_BROKER__MANAGEMENT_URL": f"http://127.0.0.1:{self.management_port}",
            "PAQETT_MQTT__PORT": str(self.platform_port),
            "PAQETT_MQTT__PASSWORD": PASSWORD,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    def settings(self, url: str, **more: str) -> Settings:
        return with_url(url, **self.environ, **more)

    def start(self, url: str) -> None:
        """Start it and wait until devices can connect."""
        found = program()
        assert found is not None, "no RabbitMQ: install it, or name it in PAQETT_TEST_RABBITMQ"
        server_files.write(self.settings(url), self.folder)
        self._run(found)
        self.wait()

    def _run(self, found: str) -> None:
        environ = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_NODENAME": f"paqett{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RUNNING_UNDER_SYSTEMD": "true",  # the virtual machine itself, with no shell around it
        }
        if self._epmd is None:
            self._epmd = self._child([_beside(found, "epmd"), "-address", "127.0.0.1"], environ)
        self.process = self._child([found], environ)

    def _child(self, argv: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "rabbitmq.out").open("ab") as said:
            return subprocess.Popen(
                argv, env=environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip

    def wait(self) -> None:
        """Return once its management API and both listeners answer."""
        deadline = time.monotonic() + _START_S
        asking = httpx.Client(auth=("paqett.ingest", PASSWORD), timeout=5)
        with asking:
            while True:
                assert self.process is not None
                assert self.process.poll() is None, (self.folder / "rabbitmq.out").read_text()
                assert time.monotonic() < deadline, (self.folder / "rabbitmq.out").read_text()
                try:
                    answer = asking.get(
                        f"http://127.0.0.1:{self.management_port}/api/health/checks/"
                        f"port-listener/{self.port}"
                    )
                    if answer.status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)

    def kill(self) -> None:
        """`kill -9` the virtual machine."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """Nothing is left running."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()

    def restart(self) -> None:
        found = program()
        assert found is not None
        self._run(found)
