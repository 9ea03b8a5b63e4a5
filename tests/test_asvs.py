"""docs/asvs.md and docs/security.md do not rot: each row is there, and every test they name."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "asvs.md").read_text()
# the standard's requirements of levels 1 and 2, by chapter: V1 to V17
CHAPTERS = [27, 11, 19, 10, 9, 35, 18, 7, 7, 29, 14, 9, 13, 9, 13, 16, 7]
API_RISKS = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE + API_RISKS)


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.splitlines() if line.startswith("| V")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_every_requirement_of_both_levels_stands_in_it_once() -> None:
    numbers = [number for row in rows() for number in row[0].split()]
    assert {number: count for number, count in Counter(numbers).items() if count > 1} == {}
    chapters = Counter(int(number[1:].partition(".")[0]) for number in numbers)
    assert [chapters[chapter] for chapter in range(1, 18)] == CHAPTERS


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_a_test_it_names_exists(path: str, name: str) -> None:
    assert name in functions_of(path)


def test_what_is_met_is_shown_and_what_is_not_has_its_reason() -> None:
    for row in rows():
        assert len(row) in (3, 4), row
        assert all(row), row
        if len(row) == 4:
            assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+` ?)+", row[3]), row[0]
    assert len([row for row in rows() if len(row) == 4]) > 150


def test_each_of_the_ten_risks_of_an_api_is_shown_to_be_met() -> None:
    found = [line for line in API_RISKS.splitlines() if line.startswith("| API")]
    assert [line.split()[1] for line in found] == [f"API{number}" for number in range(1, 11)]
    assert all(re.search(r"\| (`tests/[\w/]+\.py::test_\w+` ){2,}\|$", line) for line in found)
