"""`make audit` tells what is known from what could not be asked, which its tools do not."""

import json

import pytest

import advisories
from advisories import LOCKED, PINNED, ROOT, lines, of_npm, of_python

CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
KNOWN = {
    "name": "idna",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"], "aliases": []}],
}
SKIPPED = {"name": "idna", "skip_reason": "Dependency not found and could not be audited"}


def python(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        (python(CLEAN), "No known vulnerabilities found", "nothing known"),
        (python(KNOWN), "", "KNOWN    idna 2.0: PYSEC-2024-60, mended in 3.7"),
        # pip-audit ends well here, and says that nothing is known
        (python(SKIPPED), "No known vulnerabilities found", "not run  1 packages: idna"),
        ("", "Traceback\nrequests.ConnectionError: refused\n", "not run  requests.ConnectionErro"),
        ("", "", "not run  no answer"),
    ],
)
def test_what_pip_audit_says_is_told(out: str, err: str, said: str) -> None:
    (line,) = lines("constraints.txt", *of_python(out, err))
    assert line.startswith(f"constraints.txt: {said}")


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        ('{"vulnerabilities": {}}', "", "nothing known"),
        (
            '{"vulnerabilities": {"a": {"name": "a", "range": "<2", "severity": "high"}}}',
            "", "KNOWN    a <2: high",
        ),
        (
            '{"message": "405 Method Not Allowed", "statusCode": 405}',
            "npm error audit endpoint returned an error\nnpm error A complete log of this run …",
            "not run  npm error audit endpoint returned an error",
        ),
    ],
)  # fmt: skip
def test_what_npm_says_is_told(out: str, err: str, said: str) -> None:
    assert lines("assets", *of_npm(out, err)) == [f"assets: {said}"]


@pytest.mark.parametrize(("packages", "code"), [([CLEAN], 0), ([SKIPPED], 0), ([KNOWN], 1)])
def test_it_fails_where_something_is_known(monkeypatch, capsys, packages, code) -> None:
    asked = []

    def run(argv, folder):
        asked.append((argv, folder))
        return (python(*packages) if "pip_audit" in argv else '{"vulnerabilities": {}}'), ""

    monkeypatch.setattr(advisories, "_run", run)
    assert advisories.main() == code
    assert len(asked) == len(PINNED) + len(LOCKED)
    assert len(capsys.readouterr().out.splitlines()) == len(asked)


def test_every_file_of_pins_is_asked_about() -> None:
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("constraints.txt") if _ours(path)}
    assert found == set(PINNED)
    locks = {str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("package-lock.json")}
    assert {folder for folder in locks if "node_modules" not in folder} == set(LOCKED)


def _ours(path) -> bool:
    return not {".venv", ".cache"} & set(path.parts)
