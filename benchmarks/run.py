"""The benchmarks, each figure against the COPY ceiling of the same run.

    python benchmarks/run.py [--only end_to_end,latency] [--quick]

All parts but `compare` and `soak`, which have to be named. Writes `results/<part>.json`, the
charts, and the tables of README.md; prints the tables. What `--quick` finds goes to
`results/quick/` instead, and not into README.md.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import report
from paqett.local.postgres import find_binaries
from suite import form, tables

PARTS = (
    "ceiling", "broker", "end_to_end", "newer_broker", "latency", "memory", "series",
    "duplicates", "transport", "profile", "sign_in", "alerts", "reading", "export_all",
    "moves", "pages", "storm", "capacity",
)  # fmt: skip
BY_NAME = ("compare", "soak")
"""Run where they are named: one installs other people's programs, one takes half an hour."""


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def machine(mosquitto: str | None) -> dict[str, Any]:
    """What the figures were measured on; with another Mosquitto than its own where one is given."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    mosquitto = mosquitto or shutil.which("mosquitto", path=path)
    return {
        "cores": os.cpu_count(),
        "cpu": cpu,
        "python": platform.python_version(),
        "postgresql": _first_line(str(find_binaries() / "postgres"), "--version"),
        "mosquitto": _first_line(mosquitto or "mosquitto", "-h").partition(" (")[0],
    }


def measure(part: str, chosen: form.Form) -> bool:
    """Run one part and keep its result; whether it went well."""
    began = time.monotonic()
    print(f"\n## {part}\n", flush=True)
    try:
        result = importlib.import_module(f"suite.parts.{part}").run(chosen)
    except Exception:
        traceback.print_exc()
        return False
    result = {
        "part": part,
        "form": chosen.name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(chosen.mosquitto if part == "newer_broker" else None),
        **result,
    }
    _keep(part, result, report.folder(chosen.name))
    print(tables.of(part, result))
    print(f"\n{time.monotonic() - began:.0f} s", flush=True)
    return True


def _keep(part: str, result: dict[str, Any], folder: Path) -> None:
    if "skipped" in result:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if text := result.pop("text", ""):
        (folder / f"{part}.txt").write_text(text)
    (folder / f"{part}.json").write_text(json.dumps(result, indent=2) + "\n")


def _stop(*_: object) -> None:
    raise SystemExit("stopped")


def main() -> int:
    """Run what was asked for; 1 where a part failed, the others are run all the same."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a few seconds of load each")
    parser.add_argument("--py-spy", default=shutil.which("py-spy"), help="for the profile")
    parser.add_argument("--mosquitto", help="another one, for newer_broker")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    known = PARTS + BY_NAME
    if unknown := set(parts) - set(known):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    signal.signal(signal.SIGTERM, _stop)
    length = form.quick if arguments.quick else form.full
    chosen = length(arguments.py_spy, arguments.mosquitto)
    failed = [part for part in parts if not measure(part, chosen)]
    report.draw(report.folder(chosen.name))
    if chosen.name == "full":
        report.main()
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
