"""Mosquitto as a child: keep it running, its passwords true and its log recorded."""

import asyncio
import getpass
import os
import pwd
import signal
import subprocess
from pathlib import Path

from prometheus_client import Counter, Gauge

from paqett import certificates, log, ops
from paqett.app import until_stopped
from paqett.broker import files
from paqett.broker.following import follow
from paqett.broker.log_lines import is_running, is_signed_in, parse
from paqett.broker.record import Recorder
from paqett.children import die_with_parent, service_user, without_secrets
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.mqtt.credentials import writer_client_id
from paqett.settings import Settings

_logger = log.get("broker")
_up = Gauge("paqett_broker_up", "1 while Mosquitto takes connections.")
_starts = Counter("paqett_broker_starts_total", "How often Mosquitto was started.")
_LONGEST_PAUSE_S = 30.0
_STOP_S = 60.0  # it saves what it holds
_SUBSCRIBED_S = 0.5  # from ingest's sign-in to its subscription


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`. The broker works on with its last files while the database is away.

    Raises `ConfigurationError` for settings no broker can be started with.
    """
    broker = _Broker(settings)
    broker.write_configuration()
    with certificates.hang_ups() as hung_up:
        tasks = [
            asyncio.create_task(broker.keep_running()),
            asyncio.create_task(follow(settings.database, broker, broker.recorder)),
            asyncio.create_task(broker.follow_certificate(hung_up)),
        ]
        await until_stopped(tasks, stop)
    # the log is read to its end: a broker that cannot write it cannot end
    await broker.stop()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    broker.recorder.note(None)  # nobody is online
    await broker.recorder.record_the_rest(settings.database)
    for result in results:
        if isinstance(result, Exception):
            raise result


class _Broker:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder: Path = (settings.data_dir / "broker").resolve()
        self._user = service_user("mosquitto")
        self._child: asyncio.subprocess.Process | None = None
        self._writer_line = files.writer_line(settings.mqtt)
        self._passwords = ""
        self._writer_id = writer_client_id(settings.mqtt.password)
        self._serving = self._stopping = self._reload_due = self._restarting = False
        self._writer_seen = True
        self.recorder = Recorder()
        self.recorder.note(None)

    @property
    def watched(self) -> bool:
        """Its log is read as long as there is one."""
        return True

    @property
    def _owner(self) -> tuple[int, int] | None:
        if self._user is None:
            return None
        entry = pwd.getpwnam(self._user)
        return entry.pw_uid, entry.pw_gid

    def write_configuration(self) -> None:
        """Configuration, access list and writer anew; devices stay until the database answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._owner is not None:
            os.chown(self._folder, *self._owner)
        settings = self._settings
        conf = files.mosquitto_conf(
            settings.broker, settings.mqtt, self._folder, self._user or getpass.getuser()
        )
        files.replace(self._folder / "mosquitto.conf", conf, self._owner)
        acl = files.access_list(settings.mqtt.username)
        files.replace(self._folder / "acl", acl, self._owner)
        passwords = self._folder / "passwords"
        old = passwords.read_text() if passwords.exists() else ""
        text = files.with_writer(old, settings.mqtt, self._writer_line)
        files.replace(passwords, text, self._owner)

    async def keep_running(self) -> None:
        """Start the child again whenever it ends: 0.3 s later, at most 30 s if it keeps ending.

        Raises `ConfigurationError` where there is no Mosquitto to start.
        """
        loop = asyncio.get_running_loop()
        pause = 0.3
        while True:
            began = loop.time()
            self._expect_writer()
            self._child = child = await self._start()
            _logger.info("broker started", pid=child.pid)
            _starts.inc()
            await self._read_log(child)
            code = await child.wait()
            self._note_serving(serving=False)
            self.recorder.note(None)
            if self._stopping:
                return
            if self._restarting:
                self._restarting, pause = False, 0.05
                _logger.info("broker starts anew, to read its passwords")
            else:
                _logger.error("broker ended", exit_code=code)
                pause = 0.3 if loop.time() - began > 10 else min(pause * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    def _expect_writer(self) -> None:
        """What the child reads at its start, and whether it restores ingest's session.

        That session takes what devices send before ingest is back; but Mosquitto 2.0 forgets
        restored sessions at SIGHUP until their owners have signed in.
        """
        self._passwords, self._reload_due = (self._folder / "passwords").read_text(), False
        self._writer_seen = not (self._folder / "mosquitto.db").exists()

    def _writer_is_back(self, child: asyncio.subprocess.Process) -> None:
        """Save its session, so that a killed broker restores it."""
        self._writer_seen = True

        def save() -> None:
            if child.returncode is None:
                child.send_signal(signal.SIGUSR1)

        asyncio.get_running_loop().call_later(_SUBSCRIBED_S, save)

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                self._binary(), "-c", str(self._folder / "mosquitto.conf"),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env=without_secrets(os.environ), start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM, self._user),
            )  # fmt: skip
        except (FileNotFoundError, PermissionError) as error:
            raise ConfigurationError(f"broker.binary: {error}") from None

    def _binary(self) -> str:
        """Debian keeps it in /usr/sbin, which is not on everybody's PATH."""
        name = self._settings.broker.binary
        beside = Path("/usr/sbin") / name
        return str(beside) if beside.exists() else name

    async def _read_log(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None  # noqa: S101 - asked for above
        async for raw in child.stderr:
            line = raw.decode(errors="replace").rstrip()
            if is_running(line):
                self._note_serving(serving=True)  # before this line SIGHUP would end it
            elif is_signed_in(line, self._writer_id):
                self._writer_is_back(child)
            event = parse(line)
            if event is None:
                if "Error" in line:
                    _logger.error("broker says", line=line)
                continue
            self.recorder.note(event)

    def _note_serving(self, *, serving: bool) -> None:
        self._serving = serving
        _up.set(serving)
        ops.health.note(
            "mosquitto", "ok" if serving else "failed", "serves" if serving else "is not running"
        )

    async def follow_certificate(self, hung_up: asyncio.Event) -> None:
        """Mosquitto takes a renewed certificate for new connections, at a SIGHUP of its own."""
        own = self._settings.broker
        async for _ in certificates.renewals(own.tls_cert_file, own.tls_key_file, hung_up):
            # else it would have to start anew, which cuts everybody off
            while not (self._serving and self._writer_seen):  # noqa: ASYNC110 - rare and short
                await asyncio.sleep(0.2)
            self._reload_due = True
            self._reload()
            _logger.info("broker rereads its files")

    async def admit(self, verifiers: dict[str, str]) -> None:
        """Write them down; `settle` tells the child."""
        text = files.password_file(verifiers.items(), self._writer_line)
        if text == self._passwords:
            return
        await asyncio.to_thread(files.replace, self._folder / "passwords", text, self._owner)
        self._passwords, self._reload_due = text, True

    async def settle(self, _: Connection) -> None:
        """Tell the child of what it must reread."""
        self._reload()

    def _reload(self) -> None:
        """Tell the child of new passwords; one that must not reread them is started anew."""
        child = self._child
        if not self._reload_due or not self._serving:
            return
        if child is not None and child.returncode is None:
            self._reload_due = False
            self._restarting = not self._writer_seen
            child.send_signal(signal.SIGHUP if self._writer_seen else signal.SIGTERM)

    async def stop(self) -> None:
        """Ask the child to end; it saves what it holds."""
        self._stopping = True
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), _STOP_S)
        except TimeoutError:
            child.kill()
            await child.wait()
