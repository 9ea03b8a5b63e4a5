"""What is known against the packages that are pinned; `make audit` runs it.

Asks by pip-audit and npm. A package nobody could be asked about is told as "not run", since both
programs may end well without having looked. Exit code 1 where something is known, else 0.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = ("constraints.txt", "tests/audit/constraints.txt", "tests/fuzz/constraints.txt")
LOCKED = ("assets", "tests/pages", "tests/community")


def of_python(out: str, err: str) -> tuple[list[str], list[str]]:
    """What pip-audit found, and what it did not look at."""
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], [_last_line(err)]
    found = [
        f"{package['name']} {package['version']}: {one['id']}{_mended(one['fix_versions'])}"
        for package in packages
        for one in package.get("vulns", [])
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    return found, [f"{len(skipped)} packages: {', '.join(skipped)}"] if skipped else []


def of_npm(out: str, err: str) -> tuple[list[str], list[str]]:
    """The same of npm."""
    try:
        answer = json.loads(out)
        packages = answer["vulnerabilities"].values()
    except (ValueError, KeyError, TypeError):
        return [], [_last_line(err)]
    return [f"{one['name']} {one['range']}: {one['severity']}" for one in packages], []


def _mended(versions: list[str]) -> str:
    return f", mended in {', '.join(versions)}" if versions else ""


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "complete log" not in line]
    return lines[-1].strip() if lines else "no answer"


def _asked() -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    for name in PINNED:
        argv = [
            sys.executable, "-m", "pip_audit", "-r", name, "--require-hashes", "--disable-pip",
            "--format", "json", "--progress-spinner", "off",
        ]  # fmt: skip
        yield name, of_python(*_run(argv, ROOT))
    path = os.pathsep.join([str(ROOT / ".venv" / "bin"), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=path) or "npm"
    for folder in LOCKED:
        argv = [npm, "audit", "--package-lock-only", "--json"]
        yield f"{folder}/package-lock.json", of_npm(*_run(argv, ROOT / folder))


def _run(argv: list[str], folder: Path) -> tuple[str, str]:
    try:
        done = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{type(error).__name__}: {argv[0]}"
    return done.stdout, done.stderr


def lines(name: str, found: list[str], unasked: list[str]) -> list[str]:
    """What is said of one file."""
    said = [*(f"KNOWN    {one}" for one in found), *(f"not run  {one}" for one in unasked)]
    return [f"{name}: {one}" for one in said or ["nothing known"]]


def main() -> int:
    """Ask about every file, and say what was answered."""
    bad = False
    for name, (found, unasked) in _asked():
        bad |= bool(found)
        print(*lines(name, found, unasked), sep="\n", flush=True)  # noqa: T201 - what it is for
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
