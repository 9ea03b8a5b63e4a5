"""One ear for the whole process: what flushes tell, handed to the streams it is for.

The connection that listens is opened with the first stream. When it is lost, every stream ends:
clients come back by themselves and are given the latest values, so nothing is missed.
"""

import asyncio
from collections import defaultdict
from contextlib import suppress

import msgspec
from psycopg import Error, sql

from paqett import db, log
from paqett.errors import Unavailable
from paqett.readings.live import Part
from paqett.settings import Database
from paqett.sqlfiles import query

_logger = log.get("live")
_MOST_WAITING = 1000  # parts a reader may be behind before it is dropped
_decoder = msgspec.json.Decoder(Part)


class Subscription:
    """What waits for one stream; `ended` once it can no longer be complete, and why."""

    def __init__(self, device_id: str | None, allowed: frozenset[str] | None) -> None:
        self._device_id, self._allowed = device_id, allowed
        self._waiting: asyncio.Queue[Part | None] = asyncio.Queue()
        self.ended = ""

    def offer(self, part: Part) -> None:
        """Take a part this stream is for; a reader too far behind is let go."""
        if self._device_id not in (None, part.device):
            return
        if self._allowed is not None and part.device not in self._allowed:
            return
        if self._waiting.qsize() >= _MOST_WAITING:
            self.end("too slow: more came than was read")
        elif not self.ended:
            self._waiting.put_nowait(part)

    def end(self, why: str) -> None:
        """No more after what waits already."""
        if not self.ended:
            self.ended = why
            self._waiting.put_nowait(None)

    async def next(self, timeout_s: float) -> Part | None:
        """The next part; None after `timeout_s` without one, or once it has ended."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._waiting.get()
        except TimeoutError:
            return None


class Hub:
    """Listens, and hands on by account."""

    def __init__(self, settings: Database) -> None:
        self._settings = settings
        self._streams: dict[int, set[Subscription]] = defaultdict(set)
        self._starting = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def subscribe(
        self, account_id: int, device_id: str | None, allowed: frozenset[str] | None
    ) -> Subscription:
        """From here on nothing of the account is missed. Raises `Unavailable`."""
        async with self._starting:
            if self._listening is None or self._listening.done():
                conn = await self._listen()
                self._listening = asyncio.create_task(self._hand_on(conn), name="live")
        subscription = Subscription(device_id, allowed)
        self._streams[account_id].add(subscription)
        return subscription

    def unsubscribe(self, account_id: int, subscription: Subscription) -> None:
        """Nobody reads it any more."""
        self._streams[account_id].discard(subscription)
        if not self._streams[account_id]:
            del self._streams[account_id]

    async def _listen(self) -> db.Connection:
        try:
            conn = await db.connect(self._settings, "api live", autocommit=True)
            row = await (await conn.execute(query("unscoped_live_channel"))).fetchone()
            channel = sql.Identifier(row["name"] if row else "")
            await conn.execute(sql.SQL("LISTEN {}").format(channel))
        except (Error, OSError) as error:
            raise Unavailable("The database cannot be reached; try again.") from error
        return conn

    async def _hand_on(self, conn: db.Connection) -> None:
        try:
            async with conn:
                async for notification in conn.notifies():
                    part = _decoder.decode(notification.payload)
                    for subscription in tuple(self._streams.get(part.account, ())):
                        subscription.offer(part)
        except (Error, OSError) as error:
            _logger.warning("live: lost the database", error=str(error).strip())
        finally:
            self._end_all("the database went away")

    def _end_all(self, why: str) -> None:
        for subscriptions in self._streams.values():
            for subscription in subscriptions:
                subscription.end(why)

    async def close(self) -> None:
        """The process ends; so do its streams."""
        self._end_all("the server is stopping")
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
