"""No secret, token, password or personal datum in any line that is logged while the tests run.

Every test's captured output is searched when the test ends, in whichever process it ran, and so are
the log files of the processes it started. A leak fails that test, also one that passed.
"""

import functools
import re
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# made by this process: those that no pattern below would tell from a word
_KNOWN: set[str] = set()
_PASSWORDS: set[str] = set()
_SHORTEST_PASSWORD = 8
_SHAPES = {
    "an API key": re.compile(r"pqt_[0-9A-Za-z]{20,}"),
    "a token or a device's secret": re.compile(r"(?<![\w/+-])[\w-]{43}(?![\w/+=-])"),
    "a CSRF token or a hash": re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"),
    "a password hash": re.compile(r"\$argon2id?\$|\$2[aby]\$\d\d\$|SCRAM-SHA-256\$|\$7\$1\$"),
    "credentials": re.compile(
        r"Authorization['\"]?\s*[:=]|Bearer \S|Basic [\w+/=]{8}|[Cc]ookie: \S", re.IGNORECASE
    ),
    "a password in an address": re.compile(r"://[^\s:/@]+:[^\s/@]+@"),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.(?:org|com|net|example)\b"),
    # RFC 5737 and RFC 3849: what tests use where a person's address would be
    "an IP address": re.compile(
        r"\b(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}\b|\b2001:db8:[0-9a-f:]+"
    ),
}
_WORD = re.compile(r"[\w-]{8,}")


def leaks_in(text: str) -> list[str]:
    """What of it must not be in a log: the kind, and the line with the thing itself left out."""
    return [leak for line in text.splitlines() for leak in _leaks_of(line)]


def _leaks_of(line: str) -> Iterator[str]:
    for kind, shape in _SHAPES.items():
        if shape.search(line):
            yield f"{kind}: {shape.sub('…', line)[:200]}"
    for word in _KNOWN.intersection(_WORD.findall(line)):
        yield f"a secret: {line.replace(word, '…')[:200]}"
    for password in _PASSWORDS:
        if password in line:
            yield f"a password: {line.replace(password, '…')[:200]}"


def check_files(folder: Path) -> None:
    """Search the logs that processes wrote into `folder`. Raises `AssertionError`."""
    for path in folder.rglob("*.log"):
        leaks = leaks_in(path.read_text(errors="replace"))
        assert not leaks, f"{path.name} holds {leaks[:5]}"


def pytest_configure(config: pytest.Config) -> None:
    """Note every token, code and password that this process makes."""
    if getattr(secrets.token_urlsafe, "is_noted", False):
        return
    made = secrets.token_urlsafe

    @functools.wraps(made)
    def token_urlsafe(nbytes: int | None = None) -> str:
        token = made(nbytes)
        _KNOWN.add(token)
        return token

    token_urlsafe.is_noted = True  # type: ignore[attr-defined]
    secrets.token_urlsafe = token_urlsafe
    _note_codes()
    _note_passwords()


def _note_codes() -> None:
    from paqett import tokens

    issued = tokens.issue_code

    async def issue_code(*arguments: Any) -> str:
        code = await issued(*arguments)
        _KNOWN.add(code)
        return code

    tokens.issue_code = issue_code


def _note_passwords() -> None:
    from paqett.passwords import Hasher

    hashed = Hasher.hash

    async def hash_(self: Hasher, password: str) -> str:
        if len(password) >= _SHORTEST_PASSWORD:
            _PASSWORDS.add(password)
        return await hashed(self, password)

    Hasher.hash = hash_  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test whose output holds a secret has failed."""
    report = yield
    written = "\n".join(text for name, text in report.sections if name.endswith(report.when))
    leaks = leaks_in(written)
    if leaks and report.passed:
        report.outcome = "failed"
        report.longrepr = "what was logged holds\n" + "\n".join(leaks[:10])
    return report
