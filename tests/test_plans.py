"""The plans file: what is shipped, and what is refused with the file's name."""

from pathlib import Path

import pytest

from paqett.errors import ConfigurationError
from paqett.plans import load_plans
from paqett.settings import config_dir

GOOD = '[small]\ntier = "free"\nmessage_bytes = 100\ngrafana = false\n'


def test_the_shipped_plans_are_the_contracts() -> None:
    plans = load_plans(config_dir() / "plans.toml")
    assert {name: plan.devices for name, plan in plans.items()} == {
        "free": 5,
        "paid": 50,
        "own": None,
    }
    assert plans["free"].points_per_day == 250_000
    assert plans["own"].metrics_per_device is None


def test_the_benchmarks_plans_can_be_read() -> None:
    plans = load_plans(Path(__file__).parents[1] / "benchmarks" / "plans.toml")
    assert plans["bench"].devices is not None


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "small = 1\n",
        "[small]\n",
        GOOD + "surprise = 1\n",
        GOOD + 'devices = "five"\n',
        GOOD.replace("100", "1.5"),
        GOOD + 'name = "other"\nname = "twice"\n',
        None,
    ],
)
def test_a_wrong_file_is_refused_by_its_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "our-plans.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"our-plans\.toml"):
        load_plans(path)
