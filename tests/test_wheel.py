"""What is shipped: the wheel holds all that the program reads besides its own code."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_pages_their_scripts_and_the_docs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    for folder in ("src/paqett/web/templates", "src/paqett/web/static"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.name != ".sum":
                assert str(path.relative_to(ROOT / "src")) in names
    for name in ("htmx.min.js", "uplot.min.js", "uplot.min.css"):
        assert f"paqett/web/static/vendor/{name}" in names
    for path in (*(ROOT / "docs").glob("*.md"), *(ROOT / "config").glob("*.toml")):
        assert f"paqett/{path.relative_to(ROOT)}" in names
