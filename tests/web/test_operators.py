"""What an operator does with accounts on the command line, and what the account sees of it."""

import json
import os
import subprocess
from typing import Any

import httpx
import psycopg
import pytest

from people import CHEAP_HASHES, Person

PASSWORD = "an operator's choice"


@pytest.fixture
def admin(database_url: str, paqett: str) -> Any:
    """`paqett admin …` on the test's database; gives its output, or its code where it fails."""

    def run(*arguments: str, typed: str = "", code: int = 0) -> str:
        environ = {**os.environ, **CHEAP_HASHES, "PAQETT_DATABASE__URL": database_url}
        done = subprocess.run(
            [paqett, "admin", *arguments],
            input=typed, capture_output=True, text=True, env=environ, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout or done.stderr

    return run


def notices(url: str) -> list[tuple[str, Any]]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT event, data ->> 'what' FROM notice ORDER BY id").fetchall()


def test_an_account_is_made_with_a_password_from_standard_input(admin, make_api) -> None:
    made = json.loads(
        admin("create-account", "ada@example.org", "--operator", "--password-stdin", "--json",
              typed=f"{PASSWORD}\n")
    )  # fmt: skip
    assert made["email"] == "ada@example.org"
    (listed,) = json.loads(admin("list", "--json"))
    assert (listed["operator"], listed["verified"], listed["disabled"]) == (True, True, False)

    async def work(client: httpx.AsyncClient) -> None:
        assert (await Person(client, "ada@example.org", PASSWORD).sign_in()).status_code == 200

    make_api().run(work)


def test_a_wrong_account_or_password_is_refused(admin) -> None:
    for arguments, typed in (
        (("create-account", "no address"), ""),
        (("create-account", "ada@example.org", "--password-stdin"), "short\n"),
        (("create-account", "ada@example.org", "--password-stdin"), "password\n"),
        (("set-password", "nobody@example.org"), f"{PASSWORD}\n"),
        (("disable", "nobody@example.org"), ""),
    ):
        assert admin(*arguments, typed=typed, code=1).startswith("paqett: ")
    assert json.loads(admin("list", "--json")) == []


def test_a_new_password_and_a_disabled_account_end_what_was_open(
    admin, make_api, database_url
) -> None:
    admin("create-account", "ada@example.org", "--password-stdin", typed="the first of them\n")
    api = make_api()

    async def work(client: httpx.AsyncClient) -> None:
        person = Person(client, "ada@example.org", "the first of them")
        assert (await person.sign_in()).status_code == 200
        (session,) = json.loads(admin("sessions", "ada@example.org", "--json"))
        assert (session["ended_at"], session["method"]) == (None, "password")
        admin("set-password", "ada@example.org", typed=f"{PASSWORD}\n")
        assert (await person.ask("GET", "/account")).status_code == 401
        person.password = PASSWORD
        assert (await person.sign_in()).status_code == 200
        admin("disable", "ada@example.org")
        assert (await person.ask("GET", "/devices")).json()["code"] == "account_disabled"
        admin("enable", "ada@example.org")
        assert (await person.ask("GET", "/devices")).status_code == 200
        admin("sessions", "ada@example.org", "--end")
        assert (await person.ask("GET", "/devices")).status_code == 401
        admin("set-operator", "ada@example.org")
        (listed,) = json.loads(admin("list", "--json"))
        assert listed["operator"]
        admin("set-operator", "ada@example.org", "--off")

    api.run(work)
    seen = notices(database_url)
    for command in ("sessions", "set-password", "disable", "enable", "set-operator"):
        assert ("operator_access", f"paqett admin {command}") in seen
    events = {event for event, _ in seen}
    assert {"password_changed", "account_disabled", "account_enabled"} <= events


def test_a_disabled_accounts_devices_leave_the_brokers_file(admin, owner, database_url) -> None:
    from paqett import sqlfiles

    def known() -> set[str]:
        with psycopg.connect(database_url) as conn:
            rows = conn.execute(sqlfiles.query("unscoped_device_verifiers")).fetchall()
        return {row[0] for row in rows}

    assert set(owner.devices) <= known()
    with psycopg.connect(database_url, autocommit=True) as listening:
        listening.execute("LISTEN paqett_credentials")
        admin("disable", str(owner.account_id))
        assert list(listening.notifies(timeout=5, stop_after=1))
    assert not set(owner.devices) & known()
