"""A shop whose people leave: what they have, what is left of it, and what was mailed."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec

from paqett import db
from paqett.erasure import closing
from paqett.erasure.closing import Closing
from paqett.readings.directory import Directory
from paqett.readings.incoming import Incoming, Outcome
from paqett.readings.write import write_batch
from paqett.worker import erasure
from people import Person
from post import plain, read
from shop import Shop

TIERS = ("free", "paid", "own")
TELEMETRY = [f"telemetry_{tier}{form}" for tier in TIERS for form in ("", "_text")]
_LINK = re.compile(r"https?://[^/\s]+/(\S+)\?token=([A-Za-z0-9_-]{43})")


class Leaving(Shop):
    """`folder` is the data folder of every process here."""

    def __init__(self, url: str, folder: Path, **environ: str) -> None:
        self.folder = folder
        super().__init__(url, PAQETT_PAQETT__DATA_DIR=str(folder), **environ)

    async def delete(self, person: Person, **body: Any) -> httpx.Response:
        """DELETE /account."""
        more: dict[str, Any] = {"json": body} if body else {}
        return await person.ask("DELETE", "/account", **more)

    async def close(self, account_id: int, *, at_once: bool = False) -> Closing:
        """The same without a person."""
        async with db.transaction(self.services.pool) as conn:
            return await closing.ask(conn, account_id, "operator", self.now(), at_once=at_once)

    async def work(self) -> None:
        """Work jobs until none is due, those that jobs have written too."""
        due = "SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL"
        await super().work()
        while self.rows(due):
            await super().work()

    async def due(self) -> None:
        """The worker's round, and the jobs it writes."""
        await erasure.erase_due(self.services)
        await self.work()

    async def erase(self, account_id: int) -> str:
        """Everything, now, without the queue; the erasure's number."""
        await self.close(account_id, at_once=True)
        whole = "SELECT id FROM erasure WHERE account_id = %s AND device_id IS NULL"
        found = str(self.rows(whole, account_id)[0][0])
        await erasure.erase(self.services, found)
        await erasure._mail_receipt(self.services, found)
        return found

    async def send(self, device: str, *items: Any, directory: Directory | None = None) -> Outcome:
        """One flush of the device's readings."""
        now_us = round(self.now().timestamp() * 1_000_000)
        messages = [
            Incoming(device, "telemetry", msgspec.json.encode(item), now_us + n)
            for n, item in enumerate(items)
        ]
        async with db.transaction(self.services.pool) as conn:
            return await write_batch(conn, directory or self.directory(), messages)

    def directory(self) -> Directory:
        """What a process that has just started knows."""
        return Directory(self.services.plans)

    async def device(self, person: Person, name: str) -> dict[str, Any]:
        """A new device with its secret."""
        answer = await person.ask("POST", "/devices", json={"thing_name": name})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def account_of(self, email: str) -> int:
        return int(self.rows("SELECT id FROM account WHERE email = %s", email)[0][0])

    def mails(self) -> list[tuple[str, str, str]]:
        """To whom, about what, and the words, oldest first."""
        mails = [read(path.read_bytes()) for path in sorted((self.folder / "mail").glob("*.eml"))]
        return [(str(mail["To"]), str(mail["Subject"]), plain(mail)) for mail in mails]

    def link(self, page: str) -> str:
        """The token of the last link to a page that was mailed."""
        found = [
            token for *_, words in self.mails() for at, token in _LINK.findall(words) if at == page
        ]
        assert found, f"no link to {page} was mailed"
        return str(found[-1])

    def tombstones(self) -> list[dict[str, Any]]:
        file = self.folder / "backup" / "erasures.ndjson"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def readings(self) -> int:
        return sum(self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in TELEMETRY)
