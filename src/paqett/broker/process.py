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

from paqett import db, log
from paqett.broker import files
from paqett.broker.log_lines import Event, parse
from paqett.children import die_with_parent, service_user
from paqett.db import Connection
from paqett.settings import Settings
from paqett.sqlfiles import query

_logger = log.get("broker")
_devices = Gauge("paqett_broker_devices", "Devices in the password file.")
_events = Counter("paqett_broker_events_total", "Connection events.", ["kind"])
_RESYNC_S = 60.0
_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`. The broker works on with its last files while the database is away.

    Raises `ConfigurationError` for settings no broker can be started with.
    """
    broker = _Broker(settings)
    broker.write_configuration()
    tasks = [
        asyncio.create_task(broker.keep_running()),
        asyncio.create_task(broker.follow_database()),
    ]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await broker.stop()
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
        self._passwords: str | None = None
        self._pending: list[tuple[datetime, Event]] = []
        self._restarted = False

    @property
    def _owner(self) -> tuple[int, int] | None:
        if self._user is None:
            return None
        entry = pwd.getpwnam(self._user)
        return entry.pw_uid, entry.pw_gid

    def write_configuration(self) -> None:
        """Configuration and access list anew; passwords stay until the database answers."""
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
        if not (self._folder / "passwords").exists():
            files.replace(self._folder / "passwords", self._writer_line, self._owner)

    async def keep_running(self) -> None:
        """Start the child again whenever it ends, at once and then a second apart."""
        while True:
            self._child = await asyncio.create_subprocess_exec(
                self._binary(), "-c", str(self._folder / "mosquitto.conf"),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM, self._user),
            )  # fmt: skip
            self._restarted = True
            self._passwords = None
            _logger.info("broker started", pid=self._child.pid)
            await self._read_log(self._child)
            code = await self._child.wait()
            _logger.error("broker ended", exit_code=code)
            await asyncio.sleep(0.3)

    def _binary(self) -> str:
        """Debian keeps it in /usr/sbin, which is not on everybody's PATH."""
        name = self._settings.broker.binary
        beside = Path("/usr/sbin") / name
        return str(beside) if beside.exists() else name

    async def _read_log(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None  # noqa: S101 - asked for above
        async for raw in child.stderr:
            line = raw.decode(errors="replace").rstrip()
            event = parse(line)
            if event is None:
                if "Error" in line:
                    _logger.error("broker says", line=line)
                continue
            _events.labels(event.kind).inc()
            if _DEVICE_ID.fullmatch(event.client):
                self._pending.append((datetime.now(UTC), event))

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
            await asyncio.sleep(1)

    async def _follow(self, conn: Connection) -> None:
        loop = asyncio.get_running_loop()
        next_sync = 0.0
        while True:
            if loop.time() >= next_sync or self._passwords is None:
                await self._sync(conn)
                next_sync = loop.time() + _RESYNC_S
            async for _ in conn.notifies(timeout=0.2, stop_after=1):
                next_sync = 0.0
            await self._record(conn)

    async def _sync(self, conn: Connection) -> None:
        rows = await (await conn.execute(query("unscoped_device_verifiers"))).fetchall()
        text = files.password_file(
            ((row["id"], row["verifier"]) for row in rows), self._writer_line
        )
        _devices.set(len(rows))
        if text == self._passwords:
            return
        await asyncio.to_thread(files.replace, self._folder / "passwords", text, self._owner)
        self._passwords = text
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGHUP)

    async def _record(self, conn: Connection) -> None:
        if self._restarted:
            await conn.execute(query("unscoped_all_offline"), {"now": datetime.now(UTC)})
            self._restarted = False
        if not self._pending:
            return
        events = self._pending[:10_000]
        async with conn.transaction():
            await conn.execute(query("unscoped_note_events"), _event_columns(events))
            last = {
                event.client: (at, event)
                for at, event in events
                if event.kind in ("connected", "disconnected")
            }
            await conn.execute(query("unscoped_note_connections"), _state_columns(last))
        del self._pending[: len(events)]

    async def stop(self) -> None:
        """Ask the child to end; it saves what it holds."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), 10)
        except TimeoutError:
            child.kill()
        with suppress(Error, OSError):
            async with await db.connect(self._settings.database, "broker", autocommit=True) as conn:
                self._restarted = True
                await self._record(conn)


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
