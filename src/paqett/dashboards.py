"""The files Grafana is set up with: `config/grafana/`, with an account's values filled in.

`${PAQETT_…}` is Grafana's own way to write an environment variable in a provisioning file, so the
files work as they are shipped too. Secrets are never filled in: they stay variables.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from paqett.errors import NotFound
from paqett.settings import config_dir

ARCHIVE = "paqett-grafana.zip"
# What needs no SQL login; everything else does.
_HTTP = ("paqett-infinity.yaml", "paqett.yaml", "overview-http.json", "device-http.json")
# Not for accounts: it is about the whole installation.
_OPERATORS = ("operators.json", "paqett-prometheus.yaml")
_VALUE = re.compile(r"\$\{(PAQETT_[A-Z_]+)\}")


def shipped() -> dict[str, Path]:
    """Every file for accounts by its name, which is unique."""
    folder = config_dir() / "grafana"
    found = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name not in _OPERATORS}


def needs_login(name: str) -> bool:
    """Whether the file speaks SQL."""
    return name not in (*_HTTP, ARCHIVE)


def read(name: str, values: Mapping[str, str]) -> bytes:
    """One file with the values filled in. Raises `NotFound`."""
    path = shipped().get(name)
    if path is None:
        raise NotFound(f"There is {', '.join([*shipped(), ARCHIVE])}.")
    return _fill(path, values)


def archive(values: Mapping[str, str], *, with_sql: bool) -> bytes:
    """All of them in their folders; those that speak SQL only where asked for."""
    folder = config_dir() / "grafana"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, path in shipped().items():
            if with_sql or not needs_login(name):
                file.writestr(path.relative_to(folder).as_posix(), _fill(path, values))
    return packed.getvalue()


def _fill(path: Path, values: Mapping[str, str]) -> bytes:
    return _VALUE.sub(lambda found: values.get(found[1], found[0]), path.read_text()).encode()
