"""config/prometheus: each alert fires when it should, and is quiet before.

alerts_test.yml has the cases, in the form that Prometheus's promtool runs.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from alarms import RULES, documented, labels_of, metrics_of, promtool, rules

CASES = Path(__file__).parent / "alerts_test.yml"
CONFIGURATIONS = sorted(path for path in RULES.parent.glob("*.yml") if path != RULES)
TESTS: list[dict[str, Any]] = yaml.safe_load(CASES.read_text())["tests"]
_UNITS = {"m": 1.0, "s": 1 / 60}


def minutes(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([ms])", text))


def inputs(test: dict[str, Any]) -> dict[str, set[str]]:
    """The names of what is put in, each with its labels."""
    found: dict[str, set[str]] = {}
    for one in test["input_series"]:
        name, _, labels = one["series"].partition("{")
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


@pytest.mark.parametrize("alert", rules())
def test_each_alert_is_shown_quiet_and_then_firing_in_the_same_series(alert: str) -> None:
    rule, shown = rules()[alert], 0
    for test in TESTS:
        steps = [step for step in test["alert_rule_test"] if step["alertname"] == alert]
        firing = [minutes(step["eval_time"]) for step in steps if step["exp_alerts"]]
        quiet = [minutes(step["eval_time"]) for step in steps if not step["exp_alerts"]]
        if not firing:
            continue
        assert quiet, test["name"]
        assert min(quiet) < min(firing), test["name"]
        names = metrics_of(rule["expr"]) or {"up"}
        shown += names <= inputs(test).keys()
        for step in steps:
            for one in step["exp_alerts"]:
                assert one["exp_labels"]["severity"] == rule["labels"]["severity"]
                assert one["exp_annotations"].keys() == rule["annotations"].keys()
    assert shown, f"no case of {alert} puts in every metric it asks for"


def test_what_is_put_in_has_the_labels_that_the_metrics_have() -> None:
    assert len(documented()) > 50
    for test in TESTS:
        for name, labels in inputs(test).items():
            if name != "up":
                assert labels - {"job", "instance"} == labels_of(name), f"{test['name']}: {name}"


def test_no_case_is_about_an_alert_that_there_is_not() -> None:
    assert {step["alertname"] for test in TESTS for step in test["alert_rule_test"]} == set(rules())
    assert all(step["alertname"] in test["name"] for test in TESTS
               for step in test["alert_rule_test"])  # fmt: skip


def test_prometheus_takes_the_configurations_and_the_rules(tmp_path: Path) -> None:
    said = promtool("check", "config", *map(str, CONFIGURATIONS))
    assert said.returncode == 0, said.stdout + said.stderr
    said = promtool("check", "rules", str(RULES))
    assert (said.returncode, f"{len(rules())} rules found" in said.stdout) == (0, True)
    broken = tmp_path / "alerts.yml"
    broken.write_text(RULES.read_text().replace("max(", "most(", 1))
    assert promtool("check", "rules", str(broken)).returncode != 0, "it does look"


def test_each_alert_fires_with_its_words_when_it_should_and_is_quiet_before() -> None:
    said = promtool("test", "rules", str(CASES))
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_configurations_differ_in_nothing_but_addresses() -> None:
    texts = {re.sub(r'targets: \["[\w.]+:', "targets: [", path.read_text().split("\nglobal:")[1])
             for path in CONFIGURATIONS}  # fmt: skip
    assert len(CONFIGURATIONS) == 2
    assert len(texts) == 1
