"""The operator's alert rules, judged by Prometheus's own tool on what processes really say."""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from paqett.settings import config_dir, docs_dir

RULES = config_dir() / "prometheus" / "alerts.yml"
_BEFORE_M = 10


@cache
def rules() -> dict[str, dict[str, Any]]:
    """Every alert's rule by its name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def metrics_of(expression: str) -> set[str]:
    """The names of our metrics in an expression, with a histogram's endings."""
    return set(re.findall(r"\b(?:paqett|process)_\w+", expression))


@cache
def documented() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of each metric as docs/operations.md has them."""
    text = (docs_dir() / "operations.md").read_text()
    rows = re.findall(r"^\| `(paqett_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def labels_of(series: str) -> set[str]:
    """The labels that the docs give to a sample's name, beside Prometheus's own two."""
    known = documented()
    base = re.sub(r"_(bucket|sum|count)$", "", series)
    if series in known:
        return known[series][1]
    return known[base][1] | ({"le"} if series.endswith("_bucket") else set())


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What it says; the test is skipped where it could not be had."""
    ours = Path(__file__).parents[1] / ".cache" / "promtool"
    program = str(ours) if ours.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: src/paqett/local/setup.sh --tests takes it from Debian's package")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


class Look(msgspec.Struct, frozen=True):
    """The processes' `/metrics` at one time, by job and instance; empty where nobody answers."""

    pages: Mapping[tuple[str, str], str]
    at: float = msgspec.field(default_factory=time.monotonic)

    def samples(self) -> Iterator[tuple[str, bool, float]]:
        """Each series that a rule asks for: with its labels, whether it counts, its value."""
        asked = {name for rule in rules().values() for name in metrics_of(rule["expr"])}
        for (job, instance), text in self.pages.items():
            where = {"job": job, "instance": instance}
            yield _series("up", where), False, float(bool(text))
            for family in text_string_to_metric_families(text):
                counts = family.type in ("counter", "histogram")
                for sample in family.samples:
                    if sample.name in asked:
                        yield _series(sample.name, {**sample.labels, **where}), counts, sample.value


def _series(name: str, labels: Mapping[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def fired(folder: Path, before: Look, after: Look, minutes: int) -> set[str]:
    """The alerts that fire in the end.

    Ten minutes were as `before`; what is so `after` stays so for `minutes`, and what counts goes
    on as it did between the two looks.
    """
    asked = {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{_BEFORE_M + minutes}m",
        "exp_samples": [],
    }
    test = {
        "interval": "1m",
        "input_series": _values(before, after, minutes),
        "promql_expr_test": [asked],
    }
    found = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    (folder / "looks.yml").write_text(yaml.safe_dump(found, width=1000))
    said = promtool("test", "rules", str(folder / "looks.yml"))
    if said.returncode == 0:
        return set()
    told = said.stdout + said.stderr
    _, found_others, got = told.partition("got:")  # none was expected
    assert found_others, told
    return set(re.findall(r'alertname="(\w+)"', got))


def _values(before: Look, after: Look, minutes: int) -> list[dict[str, str]]:
    first = {series: value for series, _, value in before.samples()}
    last = {series: (counts, value) for series, counts, value in after.samples()}
    apart_m = (after.at - before.at) / 60
    series = []
    for name in first | last:
        old, (counts, new) = first.get(name), last.get(name, (False, None))
        grown = (new or 0) - (old or 0) if counts else 0.0
        step = max(grown, 0.0) / apart_m
        values = f"{_run(old, 0, _BEFORE_M)} {_run(new, step, minutes)}"
        series.append({"series": name, "values": values})
    return series


def _run(value: float | None, step: float, samples: int) -> str:
    """`samples` of them, a minute apart."""
    if value is None:
        return " ".join(["_"] * samples)
    written = "NaN" if math.isnan(value) else f"{value!r}"
    return f"{written}+{step!r}x{samples - 1}"
