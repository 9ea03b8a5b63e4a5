"""From a published reading to the mail and the webhook, with every process real, and killed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from paqett.children import die_with_parent
from paqett.local.fleet import SimDevice
from post import Office, Post
from receiver import Receiver
from stacks import PAQETT, Pieces, running_pieces, until

QUICK_S = 2.0


class Desk:
    """A worker process, the mail server it sends by, and a server its webhooks go to."""

    def __init__(self, pieces: Pieces, folder: Path) -> None:
        self.pieces, self.folder = pieces, folder
        self.post, self.receiver = Post(), Receiver()
        self.office = Office(self.post, None, None)
        self.office.start()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {
            **os.environ,
            "PAQETT_DATABASE__URL": self.pieces.url,
            "PAQETT_PAQETT__DATA_DIR": str(self.folder),
            "PAQETT_MAIL__SMTP_HOST": "127.0.0.1",
            "PAQETT_MAIL__SMTP_PORT": str(self.office.port),
            "PAQETT_MAIL__SMTP_TLS": "none",
            "PAQETT_WEBHOOKS__ALLOW_PRIVATE": "true",
        }
        with (self.folder / "worker.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*PAQETT, "worker"], env=environ, stdout=out, stderr=out,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip
        until(self.listens, "the worker listens")

    def listens(self) -> bool:
        return bool(
            self.rows(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'paqett alerts'"
                " AND wait_event = 'ClientRead'"
            )
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        until(lambda: not self.listens(), "the server has noticed")

    def rows(self, text: str, *values: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.pieces.url, autocommit=True) as conn:
            found = conn.execute(text, values)
            return found.fetchall() if found.description else []

    def tenant(self, name: str) -> SimDevice:
        """A device whose account has an address, a webhook, and a rule about `v`."""
        [device] = self.pieces.devices(name)
        self.rows(
            "UPDATE account SET email = %s, email_verified_at = now() WHERE id = %s",
            f"{name}@example.org", device.account_id,
        )  # fmt: skip
        self.rows("INSERT INTO alert_watch (account_id, version) VALUES (%s, 1)", device.account_id)
        self.rows(
            "INSERT INTO alert_rule (account_id, name, kind, metric, operator, threshold, for_s,"
            " created_at, changed_at) VALUES (%s, %s, 'threshold', 'v', '>', 0, 0, now(), now())",
            device.account_id, name,
        )  # fmt: skip
        self.rows(
            "INSERT INTO channel (account_id, name, url, secret, created_at)"
            " VALUES (%s, 'hook', %s, 's', now())",
            device.account_id, f"http://127.0.0.1:{self.receiver.port}/",
        )  # fmt: skip
        return device

    def mails(self, name: str) -> int:
        return self.post.recipients.count([f"{name}@example.org"])

    def calls(self, name: str) -> list[str]:
        """The ids of the deliveries about a rule."""
        return [
            headers["Paqett-Delivery"]
            for headers, body in list(self.receiver.got)
            if msgspec.json.decode(body)["data"].get("rule") == name
        ]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.office.stop()
        self.receiver.stop()


@pytest.fixture(scope="module")
def pieces() -> Iterator[Pieces]:
    with running_pieces() as pieces:
        yield pieces


@pytest.fixture
def desk(pieces: Pieces, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(pieces, tmp_path)
    ingest = pieces.ingest()
    until(ingest.subscribed, "ingest has subscribed")
    try:
        yield desk
    finally:
        desk.close()
        pieces.tidy()


def test_a_reading_over_the_threshold_is_mailed_and_sent_on_within_two_seconds(
    desk, pieces, record_property
) -> None:
    device = desk.tenant("quick")
    desk.start()
    began = time.monotonic()
    pieces.send(device, 1)
    until(lambda: desk.mails("quick") and desk.calls("quick"), "mail and webhook", 30)
    took = time.monotonic() - began
    record_property("seconds", round(took, 2))
    assert took < QUICK_S
    assert desk.post.mails[0]["Subject"] == f"Alert: quick on {_name(desk, device)}"


def _name(desk: Desk, device: SimDevice) -> object:
    return desk.rows("SELECT thing_name FROM device WHERE id = %s", device.id)[0][0]


def test_what_happens_while_no_worker_is_there_is_told_once_by_the_next(desk, pieces) -> None:
    device = desk.tenant("away")
    pieces.send(device, 1)
    until(lambda: desk.rows("SELECT 1 FROM alert WHERE device_id = %s", device.id), "fired")
    for _ in range(2):
        desk.start()
        until(lambda: desk.mails("away") and desk.calls("away"), "told", 30)
        desk.kill()
    assert (desk.mails("away"), len(desk.calls("away"))) == (1, 1)


def test_a_worker_killed_in_the_midst_of_telling_tells_once(desk, pieces) -> None:
    device = desk.tenant("midst")
    desk.start()
    with psycopg.connect(pieces.url) as conn:
        conn.execute("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE")  # after notice and mail job
        pieces.send(device, 1)
        until(
            lambda: desk.rows(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'delivery'::regclass"
            ),
            "the worker waits",
        )
        desk.kill()
    desk.start()
    until(lambda: desk.mails("midst") and desk.calls("midst"), "told", 30)
    told = "SELECT count(*) FROM notice WHERE event = 'alert_firing' AND data ->> 'rule' = 'midst'"
    assert desk.rows(told) == [(1,)]
    assert (desk.mails("midst"), len(desk.calls("midst"))) == (1, 1)


@pytest.mark.parametrize("silent_s", [30, pytest.param(0, marks=pytest.mark.prove)])
def test_a_worker_killed_with_mail_and_webhook_in_hand_sends_both_again_under_their_ids(
    desk, pieces, silent_s
) -> None:
    """The documented case: killed between the answer and the note of it."""
    device = desk.tenant("hand")
    desk.start()
    worker = desk.process
    assert worker is not None

    def die() -> None:
        desk.post.on_data = lambda: None
        desk.receiver.before = lambda: None
        os.kill(worker.pid, signal.SIGKILL)

    desk.receiver.before = die
    pieces.send(device, 1)
    worker.wait(30)
    # a killed worker's jobs are taken up when its heart has not beaten for 30 seconds
    desk.rows(
        "UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - %s * interval '1 s'",
        silent_s,
    )
    desk.start()
    until(lambda: len(desk.calls("hand")) > 1 and desk.mails("hand"), "sent again", 90)
    assert len(set(desk.calls("hand"))) == 1
    log = desk.rows("SELECT state, jsonb_array_length(attempts) FROM delivery WHERE event <> 'test'"
                    " AND account_id = %s", device.account_id)  # fmt: skip
    until(lambda: _state(desk, device) == [("delivered", 1)], f"noted once: {log}", 10)
    ids = {mail["Message-ID"] for mail in desk.post.mails if "hand" in str(mail["Subject"])}
    assert len(ids) == 1


def _state(desk: Desk, device: SimDevice) -> list[tuple[object, ...]]:
    return desk.rows(
        "SELECT state, jsonb_array_length(attempts) FROM delivery WHERE account_id = %s",
        device.account_id,
    )
