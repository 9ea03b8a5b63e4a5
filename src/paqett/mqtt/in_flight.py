"""What a publisher has sent and the broker has not acknowledged yet."""

import asyncio
from collections.abc import Callable
from typing import Any

from paqett.errors import PaqettError


class NotPublishedError(PaqettError):
    """The broker refused this message, or it made room for newer ones."""


class Entry:
    """One message until it is settled."""

    __slots__ = ("future", "payload", "topic")

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic = topic
        self.payload = payload
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        if not self.future.done():
            self.future.set_exception(NotPublishedError(why))
            self.future.exception()  # seen: not everybody awaits it


class InFlight:
    """Stands where gmqtt keeps unacknowledged packets: removal is the acknowledgement."""

    is_empty = True  # gmqtt is to replay nothing

    def __init__(self, settle: Callable[[Entry, int], None]) -> None:
        self.entries: dict[int, Entry] = {}
        self.entering: Entry | None = None
        self.reason = 0
        self._settle = settle

    def push_message(self, mid: int, _: bytes) -> None:
        if self.entering is not None:
            self.entries[mid] = self.entering

    def remove_message_by_mid(self, mid: int) -> None:
        entry = self.entries.pop(mid, None)
        if entry is not None:
            self._settle(entry, self.reason)

    async def wait_empty(self) -> None:
        """Nothing is replayed, so nothing is waited for."""

    def clear(self) -> None:
        """Nothing to clear: a connection's end takes back what waits."""

    def get_all(self) -> list[Any]:
        return []
