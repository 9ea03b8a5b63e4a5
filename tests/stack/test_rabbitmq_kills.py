"""RabbitMQ and ingest killed together at 1,000 messages a second: nothing acknowledged is lost."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from paqett import db, migrate
from paqett.children import die_with_parent
from paqett.local import fleet, postgres, promises, simulate
from paqett.local.fleet import SimDevice
from paqett.plans import load_plans
from paqett.settings import load
from ports import free_port
from rabbit import Rabbit, program
from stacks import PAQETT, Ingest, private_folder, until
from support import in_database, with_url

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(
        program() is None, reason="no RabbitMQ 4 on PATH or in PAQETT_TEST_RABBITMQ"
    ),
]
DEVICES, RATE = 20, 50.0
ROUNDS = 6


class Site:
    """A database, RabbitMQ, our API, `paqett broker`; ingest as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cluster = postgres.create(folder / "postgres", free_port(56800), shared_buffers="64MB")
        self.url = cluster.url("paqett")
        self._server = postgres.start(cluster, folder / "server.log")
        postgres.wait_ready(cluster.url())
        postgres.create_database(cluster, "paqett")
        in_database(self.url, migrate.migrate)
        (folder / "rabbit").mkdir()
        api_port = free_port(58700)
        self.rabbit = Rabbit(folder / "rabbit", api_port, 23300)
        self.environ = {
            **self.rabbit.environ,
            "PAQETT_DATABASE__URL": self.url,
            "PAQETT_HTTP__PORT": str(api_port),
        }
        self.rabbit.start(self.url)
        self._others = [self._start("api"), self._start("broker")]
        self.ingest = self.start_ingest()

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        folder = self.folder / name
        folder.mkdir()
        with (folder / "log").open("ab") as said:
            return subprocess.Popen(
                [*PAQETT, name],
                env={**os.environ, **self.environ, "PAQETT_PAQETT__DATA_DIR": str(folder)},
                stdout=said, stderr=said, preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip

    def start_ingest(self) -> Ingest:
        ingest = Ingest(self.folder / "ingest", [*PAQETT, "ingest"], self.environ)
        self.ingest = ingest
        until(ingest.subscribed, "ingest has subscribed")
        return ingest

    def kill_both(self) -> None:
        """The virtual machine and ingest, in either order, and both again."""
        first, second = random.sample([self.rabbit.kill, self.ingest.kill], 2)
        first()
        second()
        self.rabbit.restart()
        self.rabbit.wait()
        self.start_ingest()

    def close(self) -> None:
        self.ingest.kill()
        self.rabbit.close()
        for process in self._others:
            process.kill()
            process.wait()
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)


@contextmanager
def running_site() -> Iterator[Site]:
    with private_folder() as folder:
        site = Site(folder)
        try:
            yield site
        finally:
            site.close()


def test_killing_rabbitmq_and_ingest_together_loses_nothing(record_property) -> None:
    own = load_plans(load({}).plans_file)["own"]

    async def work(site: Site) -> None:
        began, enough = datetime.now(UTC), asyncio.Event()
        file = site.folder / "ledger.jsonl"
        async with await db.connect(with_url(site.url).database, "test", autocommit=True) as conn:
            devices = await fleet.create(conn, "rabbit", DEVICES, 1, own)
            sending = asyncio.create_task(
                simulate.run(
                    devices, "127.0.0.1", site.rabbit.port, RATE, enough, ledger_file=str(file)
                )
            )
            await asyncio.sleep(3)
            for _ in range(ROUNDS):
                await asyncio.to_thread(site.kill_both)
                await asyncio.sleep(random.uniform(1.0, 4.0))
            enough.set()
            ledger = await sending
            await promises.stage(conn, file)
            balance = await settled(conn, own.tier, devices, began)
        record_property("published", ledger.published)
        record_property("acknowledged", ledger.acknowledged)
        assert ledger.acknowledged > 10_000
        assert balance.promised > 0
        assert (balance.missing, balance.doubled) == (0, 0), balance

    with running_site() as site:
        asyncio.run(work(site))


async def settled(
    conn: db.Connection, tier: str, devices: list[SimDevice], began: datetime
) -> promises.Balance:
    """The balance once nothing is missing, or nothing has come for 20 s."""
    accounts = sorted({device.account_id for device in devices})
    best, patience = -1, 40
    while True:
        balance = await promises.count(conn, tier, accounts, began - timedelta(minutes=1))
        patience = patience - 1 if balance.stored == best else 40
        if balance.missing == 0 or not patience:
            return balance
        best = balance.stored
        await asyncio.sleep(0.5)
