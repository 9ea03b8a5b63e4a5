"""A new version of the privacy policy: everybody who was there is told once, nobody else."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from paqett import accounts, migrate, notices, policy, registration
from paqett.errors import ConfigurationError
from paqett.plans import load_plans
from paqett.worker import policy as telling
from people import PASSWORD
from post import Postman, html, plain
from support import in_database

SHIPPED = policy.FOLDER
FIRST_TOLD_OF = "2026-11-25"
CHANGED = "Maps are drawn, and the coordinates of devices are kept for 30 days."
_DIES = """
import asyncio, os, pathlib, signal, sys
from paqett import notices, policy
from paqett.worker import policy as telling
from post import Postman

policy.FOLDER, telling.AT_A_TIME = pathlib.Path(sys.argv[2]), 2
told = notices.notify

async def notify(*words, **more):
    await told(*words, **more)
    os.kill(os.getpid(), signal.SIGKILL)

notices.notify = notify
Postman(sys.argv[1], pathlib.Path(sys.argv[3])).do(telling.tell)
"""


@pytest.fixture
def ship(tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """Ships the policy with one more version, and with the only other one of the first day."""
    folder = tmp_path / "privacy"
    folder.mkdir()
    shutil.copy(SHIPPED / f"{FIRST_TOLD_OF}.html", folder)
    monkeypatch.setattr(policy, "FOLDER", folder)
    monkeypatch.setattr(telling, "AT_A_TIME", 2)

    def make(day: str, changed: str = CHANGED) -> Path:
        (folder / f"{day}.html").write_text(f"{{# changed: {changed} #}}\n<p>The text.</p>\n")
        return folder

    return make


def tell(postman: Postman, rounds: int = 1) -> None:
    for _ in range(rounds):
        postman.do(telling.tell)


def told(postman: Postman) -> list[tuple[str, str]]:
    """Who has a notice of which version."""
    return postman.rows(
        "SELECT email, data ->> 'version' FROM notice JOIN account ON account.id = account_id"
        " WHERE event = 'policy_changed' ORDER BY email, notice.id"
    )


def test_a_new_version_reaches_each_account_once(postman, person, ship) -> None:
    people = [person(f"{number}@example.org").email for number in range(5)]
    tell(postman)
    assert told(postman) == []  # of what was shipped when they came
    ship("2030-01-31")
    tell(postman)
    assert told(postman) == [(email, "2030-01-31") for email in people[:2]]  # a batch a round
    tell(postman, 3)
    assert told(postman) == [(email, "2030-01-31") for email in people]
    ship("2031-02-28")
    tell(postman, 4)
    assert told(postman) == [
        (email, day) for email in people for day in ("2030-01-31", "2031-02-28")
    ]


def test_the_mail_says_the_day_and_what_changed_and_cannot_be_declined(
    postman, person, ship
) -> None:
    ann = person()
    off = notices.ChannelsIn(mail=False, webhook=False)
    wanted = notices.PreferencesIn(device=off, usage=off, billing=off, export=off)
    postman.write(lambda conn: notices.set_preferences(conn, ann.id, wanted))
    ship("2030-01-31")
    tell(postman)
    postman.work()
    (mail,) = postman.written()
    assert (mail["To"], mail["Subject"]) == (ann.email, "The privacy policy has changed")
    for said in (" ".join(plain(mail).split()), " ".join(html(mail).split())):
        assert "in force since 2030-01-31" in said
        assert CHANGED in said
        assert "https://telemetry.example.org/privacy" in said
    assert mail["List-Unsubscribe"] is None


def test_a_worker_that_is_killed_goes_on_where_it_was(postman, person, ship, tmp_path) -> None:
    people = [person(f"{number}@example.org").email for number in range(5)]
    folder = ship("2030-01-31")
    tell(postman)
    died = subprocess.run(  # in the midst of the second batch
        [sys.executable, "-c", _DIES, postman.url, folder, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, check=False,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL
    assert told(postman) == [(email, "2030-01-31") for email in people[:2]]
    tell(postman, 3)
    assert told(postman) == [(email, "2030-01-31") for email in people]
    postman.work()
    assert sorted(mail["To"] for mail in postman.written()) == people


def test_what_another_worker_holds_is_left_to_it(postman, person, ship) -> None:
    ann, bob = person("ann@example.org"), person("bob@example.org")
    ship("2030-01-31")
    with psycopg.connect(postman.url) as other:
        other.execute("SELECT FROM account WHERE id = %s FOR NO KEY UPDATE", (ann.id,))
        tell(postman)
    assert told(postman) == [(bob.email, "2030-01-31")]


def test_a_new_account_hears_nothing_of_what_it_began_with(postman, ship) -> None:
    plan = load_plans(postman.settings.plans_file)["own"]

    def wanted(email: str) -> registration.Registration:
        return registration.Registration(email, PASSWORD, age_confirmed=True)

    async def come(conn) -> None:
        await accounts.create(conn, "operators@example.org", plan)
        await registration.create_verified(conn, wanted("vouched@example.org"), plan, postman.now)
        for email in ("late@example.org", "again@example.org"):
            await registration.register(conn, wanted(email), "hash", plan, postman.now)

    async def again(conn) -> None:
        await registration.register(conn, wanted("again@example.org"), "hash", plan, postman.now)

    ship("2030-01-31")
    postman.write(come)
    ship("2031-02-28")
    postman.write(again)  # registers anew, under the new version
    postman.rows("UPDATE account SET email_verified_at = now()")
    tell(postman, 3)
    assert told(postman) == [
        (f"{name}@example.org", "2031-02-28") for name in ("late", "operators", "vouched")
    ]


def test_who_is_not_confirmed_or_is_leaving_hears_of_it_only_afterwards(
    postman, person, ship
) -> None:
    person("disabled@example.org", disabled_at=postman.now)
    person("leaving@example.org", closing_at=postman.now)
    person("unconfirmed@example.org", email_verified_at=None)
    ship("2030-01-31")
    tell(postman, 2)
    postman.work()
    assert [mail["To"] for mail in postman.written()] == ["disabled@example.org"]
    assert told(postman) == [("disabled@example.org", "2030-01-31")]
    postman.rows("UPDATE account SET closing_at = NULL, email_verified_at = now()")
    tell(postman, 2)
    postman.work()
    names = ("disabled", "leaving", "unconfirmed")
    assert told(postman) == [(f"{name}@example.org", "2030-01-31") for name in names]
    assert len(postman.written()) == 3


def test_an_installation_from_before_is_not_told_of_what_it_has(
    bare_database_url, tmp_path, monkeypatch, ship
) -> None:
    steps = migrate.migrations()
    before = {name: text for name, text in steps.items() if name < "0060"}
    with monkeypatch.context() as older:
        older.setattr(migrate, "migrations", lambda: before)
        in_database(bare_database_url, migrate.migrate)
    postman = Postman(bare_database_url, tmp_path)
    postman.rows(
        "INSERT INTO account (email, plan, tier, email_verified_at)"
        " VALUES ('old@example.org', 'own', 'own', now())"
    )
    assert "0060_policy_told" in in_database(bare_database_url, migrate.migrate)
    tell(postman)
    assert told(postman) == []
    ship("2030-01-31")
    tell(postman)
    assert told(postman) == [("old@example.org", "2030-01-31")]


def test_every_version_says_what_it_changed(ship, monkeypatch) -> None:
    for words in ("", "x" * (policy.LONGEST_CHANGE + 1)):
        ship("2030-01-31", words)
        with pytest.raises(ConfigurationError, match="2030-01-31 must say what changed"):
            policy.in_force()
    monkeypatch.setattr(policy, "FOLDER", SHIPPED)
    *dated, first = policy.versions()
    assert first == policy.FIRST
    assert [policy.read(day).day for day in dated] == dated
