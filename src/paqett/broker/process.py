"""`paqett broker`: keep Mosquitto running, its passwords true and its log recorded."""

import asyncio
import getpass
import os
import pwd
import re
import signal
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Counter, Gauge
from psycopg import Error

from paqett import certificates, db, log, ops
from paqett.app import until_stopped
from paqett.broker import files
from paqett.broker.log_lines import Event, is_running, is_signed_in, parse
from paqett.children import die_with_parent, service_user
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.mqtt.credentials import writer_client_id
from paqett.settings import Settings
from paqett.sqlfiles import query

_logger = log.get("broker")
_devices = Gauge("paqett_broker_devices", "Devices in the password file.")
_events = Counter("paqett_broker_events_total", "Connection events.", ["kind"])
_up = Gauge("paqett_broker_up", "1 while Mosquitto takes connections.")
_starts = Counter("paqett_broker_starts_total", "How often Mosquitto was started.")
_recording = Gauge(
    "paqett_broker_database_up", "1 while the database gives passwords and takes connections."
)
_RESYNC_S = 60.0
_SEEN_EVERY_S = 10.0  # a minute without is shown as an unknown connection
_SYNC_APART_S = 0.1
_REFUSALS_APART_S = 60.0
_BATCH = 10_000
_MANY_PENDING = 100_000
_LONGEST_PAUSE_S = 30.0
_STOP_S = 60.0  # it saves what it holds
_QUERY_S = 30.0
_SUBSCRIBED_S = 0.5  # from ingest's sign-in to its subscription

# None: the broker started or ended, and nobody is connected.
Pending = list[tuple[datetime, Event | None]]
_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`. The broker works on with its last files while the database is away.

    Raises `ConfigurationError` for settings no broker can be started with.
    """
    broker = _Broker(settings)
    broker.write_configuration()
    with certificates.hang_ups() as hung_up:
        tasks = [
            asyncio.create_task(broker.keep_running()),
            asyncio.create_task(broker.follow_database()),
            asyncio.create_task(broker.follow_certificate(hung_up)),
        ]
        await until_stopped(tasks, stop)
    # the log is read to its end: a broker that cannot write it cannot end
    await broker.stop()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await broker.record_the_rest()
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
        self._pending: Pending = [(datetime.now(UTC), None)]
        self._compact_at = _MANY_PENDING
        self._refused: dict[str, float] = {}

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
            self._note(None)
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
                start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM, self._user),
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
            _events.labels(event.kind).inc()
            if event.client and not self._is_repeated(event):
                self._note(event)

    def _note_serving(self, *, serving: bool) -> None:
        self._serving = serving
        _up.set(serving)
        ops.health.note(
            "mosquitto", "ok" if serving else "failed", "serves" if serving else "is not running"
        )

    def _is_repeated(self, event: Event) -> bool:
        """Refusals are noted once a minute for an id: a stranger may cause any number."""
        if event.kind != "refused":
            return False
        now = asyncio.get_running_loop().time()
        if len(self._refused) > _BATCH:
            self._refused.clear()
        if now - self._refused.get(event.client, -_REFUSALS_APART_S) < _REFUSALS_APART_S:
            return True
        self._refused[event.client] = now
        return False

    def _note(self, event: Event | None) -> None:
        self._pending.append((datetime.now(UTC), event))
        if len(self._pending) >= self._compact_at:  # the database has been away for long
            _logger.warning("old connection events dropped", pending=len(self._pending))
            self._pending = _compacted(self._pending)
            self._compact_at = max(_MANY_PENDING, 2 * len(self._pending))

    async def follow_database(self) -> None:
        """Passwords within a second of a change, and the log's events into the database."""
        while True:
            try:
                async with await db.connect(
                    self._settings.database, "broker", autocommit=True
                ) as conn:
                    await conn.execute("LISTEN paqett_credentials")
                    await self._follow(conn)
            except (Error, OSError) as error:
                _logger.warning("database away; the broker goes on", error=str(error).strip())
                _recording.set(0)
                ops.health.note("database", "warning", "away: the broker goes on as it was")
            await asyncio.sleep(1)

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

    async def _follow(self, conn: Connection) -> None:
        loop = asyncio.get_running_loop()
        next_sync = earliest = next_seen = 0.0
        while True:
            if loop.time() >= next_sync:
                await asyncio.sleep(max(0.0, earliest - loop.time()))
                async with asyncio.timeout(_QUERY_S):
                    await self._sync(conn)
                earliest = loop.time() + _SYNC_APART_S
                next_sync = loop.time() + _RESYNC_S
            self._reload()
            async for _ in conn.notifies(timeout=0.2, stop_after=1):
                next_sync = 0.0
            async with asyncio.timeout(_QUERY_S):
                await self._record(conn)
            if loop.time() >= next_seen:
                next_seen = loop.time() + _SEEN_EVERY_S
                await conn.execute(query("unscoped_note_broker_seen"), {"now": datetime.now(UTC)})
                _recording.set(1)
                ops.health.note("database", "ok", "answers")

    async def _sync(self, conn: Connection) -> None:
        rows = await (await conn.execute(query("unscoped_device_verifiers"))).fetchall()
        text = files.password_file(
            ((row["id"], row["verifier"]) for row in rows), self._writer_line
        )
        _devices.set(len(rows))
        if text == self._passwords:
            return
        await asyncio.to_thread(files.replace, self._folder / "passwords", text, self._owner)
        self._passwords, self._reload_due = text, True

    def _reload(self) -> None:
        """Tell the child of new passwords; one that must not reread them is started anew."""
        child = self._child
        if not self._reload_due or not self._serving:
            return
        if child is not None and child.returncode is None:
            self._reload_due = False
            self._restarting = not self._writer_seen
            child.send_signal(signal.SIGHUP if self._writer_seen else signal.SIGTERM)

    async def _record(self, conn: Connection) -> None:
        batch = self._pending[:_BATCH]
        if not batch:
            return
        # taken first: noting may compact what waits while the database works
        del self._pending[: len(batch)]
        try:
            async with conn.transaction():
                await _write(conn, batch)
        except BaseException:
            self._pending[:0] = batch
            raise

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

    async def record_the_rest(self) -> None:
        """Write what the log said last, if the database is there; then nobody is online."""
        self._note(None)
        with suppress(Error, OSError):
            async with await db.connect(self._settings.database, "broker", autocommit=True) as conn:
                while self._pending:
                    await self._record(conn)


async def _write(conn: Connection, batch: Pending) -> None:
    ended, last = _states(batch)
    if ended is not None:
        await conn.execute(query("unscoped_all_offline"), {"now": ended})
    events = [(at, event) for at, event in batch if event is not None]
    if events:
        columns = _event_columns(events)
        await conn.execute(query("unscoped_note_events"), columns)
        await conn.execute(query("unscoped_note_secret_uses"), columns)
    if last:
        await conn.execute(query("unscoped_note_connections"), _state_columns(last))
        await conn.execute(query("unscoped_notify_connections"), {"devices": list(last)})


def _states(batch: Pending) -> tuple[datetime | None, dict[str, tuple[datetime, Event]]]:
    """When the broker last ended, if it did, and each device's last word since then."""
    ended = None
    last: dict[str, tuple[datetime, Event]] = {}
    for at, event in batch:
        if event is None:
            ended = at
            last.clear()
        elif event.kind in ("connected", "disconnected"):
            last[event.client] = (at, event)
    return ended, last


def _compacted(pending: Pending) -> Pending:
    """Only what decides who is online now."""
    ended, last = _states(pending)
    return [*([] if ended is None else [(ended, None)]), *last.values()]


def _event_columns(events: list[tuple[datetime, Event]]) -> dict[str, object]:
    return {
        "devices": [event.client for _, event in events],
        "times": [at for at, _ in events],
        "kinds": [event.kind for _, event in events],
        "reasons": [event.reason for _, event in events],
        "ips": [event.ip for _, event in events],
    }


def _state_columns(last: dict[str, tuple[datetime, Event]]) -> dict[str, object]:
    values = list(last.values())
    return {
        "devices": list(last),
        "connections": ["online" if e.kind == "connected" else "offline" for _, e in values],
        "sinces": [at for at, _ in values],
        "reasons": [event.reason for _, event in values],
        "ips": [event.ip for _, event in values],
    }
