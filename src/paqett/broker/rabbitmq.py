"""A RabbitMQ server of the operator's: revoked devices are cut off there, connections recorded.

It asks our API who may sign in (`web/broker.py`), so there is nothing to be reloaded. What is open
is not asked again: it is closed by the management API.
"""

import asyncio
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from paqett import log
from paqett.app import until_stopped
from paqett.broker import files
from paqett.broker.following import follow
from paqett.broker.management import Management, ManagementAway
from paqett.broker.rabbit_events import TOPICS, Heard, Watch
from paqett.broker.record import Recorder
from paqett.broker.server_files import check
from paqett.db import Connection
from paqett.mqtt.clearing import KEEPALIVE_S, BrokerAway, connected, subscribed_to
from paqett.mqtt.closing import losing, until_lost
from paqett.settings import Settings
from paqett.sqlfiles import query

_logger = log.get("broker")
_AGAIN_S = 1.0
# A device whose sign-in was being answered while its secret changed is connected a moment later.
_LATE_SIGN_IN_S = 2.0
_LATE_LOOK_S = 15.0  # and heard of by then, where who is connected is looked up now and then
_MOST_WAITING = 100_000
# What the server lists, or closes by its name, it has to have collected: every 5 s.
_COLLECTED_S = 6.0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Look after the server until `stop`, whether it or the database is away or not.

    Raises `ConfigurationError` for settings it cannot be looked after with.
    """
    async with Management(settings) as management:
        await look_after(settings, stop, Server(settings, management))


async def look_after(settings: Settings, stop: asyncio.Event, server: "Server") -> None:
    """The tasks of a server, until `stop`."""
    tasks = [
        asyncio.create_task(server.listen()),
        asyncio.create_task(follow(settings.database, server, server.recorder)),
    ]
    await until_stopped(tasks, stop)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await server.recorder.record_the_rest(settings.database)
    for result in results:
        if isinstance(result, Exception):
            raise result


class Server:
    """The broker's side of `following.follow`. Raises `ConfigurationError` for its settings."""

    def __init__(self, settings: Settings, management: Management) -> None:
        check(settings)
        self._settings = settings
        self._management = management
        self._file: Path = settings.data_dir / "broker" / "passwords"
        self._known = _read(self._file)  # None: nobody knows by what secrets devices are connected
        self._cut_off: set[str] = set()
        self._late: dict[str, tuple[float, datetime]] = {}
        self._again: set[str] = set()  # of those to be cut off: for a late sign-in
        self._close: set[str] = set()
        self._watch = Watch()
        self._waiting: list[tuple[str, Mapping[str, str]]] = []
        self._listening = self._begun = False
        self._since = 0.0
        self._unwritten = False
        self._not_before = 0.0
        self.recorder = Recorder()

    @property
    def watched(self) -> bool:
        """Whether every connection is heard of."""
        return self._listening and self._begun

    async def admit(self, verifiers: dict[str, str]) -> None:
        """Who is connected by another verifier is to be cut off, by `settle`."""
        if self._known is None:
            await self._cut_everybody_off()
        else:
            changed = [one for one, line in self._known.items() if verifiers.get(one) != line]
            self._cut_off.update(changed)
            self._again.difference_update(changed)
            # whose sign-in was answered before, and took longer than anybody waits for it
            strays = self._watch.devices - verifiers.keys() - self._cut_off
            self._cut_off |= strays
            self._again |= strays
        self._unwritten = self._unwritten or verifiers != self._known
        self._known = verifiers

    async def _cut_everybody_off(self) -> None:
        """Once in a data folder's life: who was let in before it may have a secret of long ago."""
        try:
            listed = await self._management.connections()
        except ManagementAway:
            return  # it starts, and everybody signs in anew
        self._cut_off.update(one.user for one in listed)
        self._cut_off.discard(self._settings.mqtt.username)

    async def settle(self, conn: Connection) -> None:
        """Close what has to be closed; begin to record once everything that is open is known."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            return
        try:
            await self._close_due()
            if self._listening and not self._begun and loop.time() >= self._since + _COLLECTED_S:
                await self._begin(conn)
        except ManagementAway as error:
            self._not_before = loop.time() + _AGAIN_S
            _logger.warning("broker not reached", error=str(error))

    async def _close_due(self) -> None:
        devices = set(self._cut_off)
        # by its name it can be closed once it is listed; until then it is asked for again
        self._close = {name for name in self._close if self._watch.has(name)}
        for device in devices:
            self._watch.will_cut_off(device)
        await self._management.close_users(devices)
        await self._management.close(self._close)
        self._note_closed(devices - self._again)
        self._again -= devices
        self._cut_off -= devices
        if self._unwritten and not self._cut_off and self._known is not None:
            # only now: a life that ended before has closed nothing, and the next one must
            self._unwritten = False
            await asyncio.to_thread(_write, self._file, self._known)

    def _note_closed(self, devices: set[str]) -> None:
        """Since when who signs in again may have been let in by the secret of before.

        Not for those closed for that itself: who has the new secret must get in in the end.
        """
        now = asyncio.get_running_loop().time()
        self._late = {one: at for one, at in self._late.items() if at[0] + _LATE_LOOK_S > now}
        self._late.update(dict.fromkeys(devices, (now, datetime.now(UTC))))

    def _is_late(self, device: str, at: datetime) -> bool:
        """By when it is heard of, or by the broker's own word of when it was."""
        closed, closed_at = self._late.get(device, (0.0, None))
        if closed_at is None:
            return False
        within = timedelta(seconds=_LATE_SIGN_IN_S)
        soon = asyncio.get_running_loop().time() < closed + _LATE_SIGN_IN_S
        return soon or at < closed_at + within

    async def _begin(self, conn: Connection) -> None:
        rows = await (await conn.execute(query("unscoped_online_devices"))).fetchall()
        listed = await self._management.connections()
        online = [row["id"] for row in rows]
        self._take(self._watch.begin(listed, online, datetime.now(UTC)))
        for one in listed:
            if one.at is not None and self._is_late(one.user, one.at):
                self._cut_off_again(one.user)
        self._begun = True
        waiting, self._waiting = self._waiting, []
        for topic, properties in waiting:
            self._take(self._watch.hear(topic, properties))

    def _take(self, heard: list[Heard]) -> None:
        for one in heard:
            self.recorder.note(one.event, one.at)
            self._close.update(one.close)
            if one.event.kind == "connected" and self._is_late(one.event.client, one.at):
                self._cut_off_again(one.event.client)

    def _cut_off_again(self, device: str) -> None:
        if device not in self._cut_off:
            self._cut_off.add(device)
            self._again.add(device)

    async def listen(self) -> NoReturn:
        """Hear of connections as they come and go, again and again."""
        while True:
            try:
                await self._management.prepare()
                await self._listen_once()
                _logger.warning("broker connection lost")
            except (BrokerAway, ManagementAway) as error:
                _logger.warning("broker not reached", error=str(error))
            finally:
                self._listening = self._begun = False
            await asyncio.sleep(_AGAIN_S)

    async def _listen_once(self) -> None:
        async def note(
            _: Any, topic: str, _payload: bytes, _qos: int, properties: dict[str, Any]
        ) -> int:
            self._hear(topic, dict(properties.get("user_property", ())))
            return 0

        client_id = f"paqett-events-{secrets.token_hex(8)}"
        async with connected(self._settings.mqtt, client_id) as client:
            lost = losing(client)
            client.on_message = note
            self._waiting.clear()
            await subscribed_to(client, TOPICS)
            self._listening, self._since = True, asyncio.get_running_loop().time()
            _logger.info("broker watched")
            await until_lost(client._connection, lost, KEEPALIVE_S)  # noqa: SLF001 - its clock is nowhere else

    def _hear(self, topic: str, properties: Mapping[str, str]) -> None:
        if self._begun:
            self._take(self._watch.hear(topic, properties))
        elif len(self._waiting) < _MOST_WAITING:  # beyond, what is open is asked for later anyway
            self._waiting.append((topic, properties))


def _read(file: Path) -> dict[str, str] | None:
    """By which verifiers devices were let in, as far as this machine knows."""
    if not file.exists():
        return None
    pairs = (line.partition(":") for line in file.read_text().splitlines())
    return {device: verifier for device, _, verifier in pairs}


def _write(file: Path, verifiers: Mapping[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, files.password_file(verifiers.items(), ""))
