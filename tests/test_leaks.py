"""That the search through the logs of the whole run finds what it is for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import leaks
from paqett.keys import PREFIX

QUIET = "stored message=1 account=7 device=k3Jd8sLw0aQz ms=12.4 peer=127.0.0.1"


@pytest.mark.parametrize(
    "line",
    [
        "key=" + PREFIX + "0123456789abcdefghij0123456789abABCDEF",
        "token=" + "Zk3-" * 10 + "abc",
        "csrf=" + "0a" * 32,
        "password_hash=$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
        "headers={'authorization': 'x'}",
        "could not connect to postgresql://paqett_api:hunter2@10.0.0.1/paqett",
        "new account ada.lovelace+x@example.org",
        "sign-in from 203.0.113.9",
        "sign-in from 2001:db8:1::9",
    ],
)
def test_what_a_log_must_not_hold_is_found_and_not_repeated(line) -> None:
    [found] = leaks.leaks_in(f"{QUIET}\n{line}\n{QUIET}")
    assert line not in found
    assert leaks.leaks_in(QUIET) == []


def test_a_file_of_a_process_is_searched(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    log = tmp_path / "broker" / "broker.log"
    log.write_text(QUIET)
    leaks.check_files(tmp_path)
    log.write_text(f"{QUIET}\nmail to ada@example.org")
    with pytest.raises(AssertionError, match=r"broker\.log holds .*an e-mail address"):
        leaks.check_files(tmp_path)


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("print('nothing')", 0),
        ("get('web').info('x', who='ada@example.org')", 1),
        ("logging.getLogger('library').warning('ada@example.org')", 1),
        ("get('web').info('x', t=secrets.token_urlsafe(9))", 1),
        ("subprocess.run(['echo', 'ada@example.org'])", 1),
        ("asyncio.run(Hasher(load({}).auth).hash('a fine long one')); print('a fine long one')", 1),
    ],
)
def test_a_test_that_logs_a_secret_fails(tmp_path: Path, statement, status) -> None:
    (tmp_path / "test_it.py").write_text(
        "import asyncio, logging, secrets, subprocess\n"
        "from paqett.log import get\n"
        "from paqett.passwords import Hasher\n"
        "from paqett.settings import load\n"
        f"def test_it():\n    {statement}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "leaks", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(tmp_path), "--rootdir", str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # other people's take a second to import
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    assert ("what was logged holds" in done.stdout) == bool(status)
