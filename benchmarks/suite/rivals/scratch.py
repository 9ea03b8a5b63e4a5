"""Where the others are installed: a folder of their own, by their own package managers.

Nothing is installed into the machine: npm has a prefix and pip an environment of its own, and a
Debian package is taken apart into the folder, so none of its services is started.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from suite.stand import BenchmarkError

FOLDER = Path("/var/tmp/paqett-rivals")
"""Stays for the next run; remove it when it is not needed any more."""
_DEBIAN = ("mosquitto-clients", "postgresql-client-common", "libmosquitto1", "libpq5")


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command prints. Raises `BenchmarkError` where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout.strip()


def _missing(package: str) -> bool:
    done = subprocess.run(["dpkg", "-s", package], capture_output=True, check=False)
    return done.returncode != 0


def debian() -> None:
    """The clients and libraries that the others use, by apt-get where they are missing."""
    wanted = [package for package in _DEBIAN if _missing(package)]
    if wanted:
        run("apt-get", "install", "-y", "--no-install-recommends", *wanted)


def version_of(package: str) -> str:
    """Of an installed Debian package."""
    return run("dpkg-query", "-W", "-f", "${Version}", package)


def unpacked(package: str) -> Path:
    """A Debian package taken apart in the folder."""
    target = FOLDER / package
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        run("apt-get", "download", package, cwd=FOLDER)
        [archive] = FOLDER.glob(f"{package}_*.deb")
        draft = FOLDER / f"{package}.new"
        shutil.rmtree(draft, ignore_errors=True)
        run("dpkg-deb", "-x", str(archive), str(draft))
        draft.rename(target)
    return target


def archive_version(package: str) -> str:
    """Of the archive that `unpacked` took."""
    [archive] = FOLDER.glob(f"{package}_*.deb")
    return run("dpkg-deb", "-f", str(archive), "Version")


def environment(name: str, *packages: str) -> Path:
    """A Python environment with these packages; its folder of programs."""
    target = FOLDER / name
    if not (target / "made").exists():
        venv.create(target, clear=True, with_pip=True)
        run(str(target / "bin" / "python"), "-m", "pip", "install", "-q", *packages)
        (target / "made").touch()
    return target / "bin"


def prefix(name: str, *packages: str) -> Path:
    """An npm folder with these packages."""
    target = FOLDER / name
    if not (target / "made").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "package.json").write_text('{"name": "rival", "private": true}\n')
        run(tool("npm"), "install", "--no-audit", "--no-fund", *packages, cwd=target)
        (target / "made").touch()
    return target


def tool(name: str) -> str:
    """`node` or `npm`: of our development environment, else the machine's."""
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise BenchmarkError(f"there is no {name}")
    return found


def with_tools() -> dict[str, str]:
    """This environment, our development environment's programs first."""
    own = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}"}
