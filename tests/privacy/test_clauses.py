"""docs/privacy.md does not rot: every clause of the policy stands there, with code and tests."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from paqett.doctor import examine_machine
from paqett.settings import load

ROOT = Path(__file__).parents[2]
POLICY = (ROOT / "src/paqett/web/templates/privacy/1.txt").read_text()
_HEADING = re.compile(r"^(\d+(?:\.\d+)?)\.? [A-Z].*$", re.MULTILINE)


def sections() -> dict[str, str]:
    """The policy's sections by their numbers, without those that only hold others."""
    parts = _HEADING.split(POLICY)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {number: text for number, text in found if text.strip()}


def flat(text: str) -> str:
    return " ".join(text.split())


def items(text: str) -> list[str]:
    return [flat(item) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def rows() -> list[list[str]]:
    lines = (ROOT / "docs/privacy.md").read_text().splitlines()
    table = lines[lines.index("| section | promise | how it is kept | code | shown by |") + 2 :]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]


def quoted(section: str) -> list[str]:
    return [row[1].strip("“”") for row in rows() if row[0] == section]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_section_and_every_item_of_the_policy_stands_in_it() -> None:
    assert list(sections()) == [
        "1", "2.1", "2.2", "2.3", "2.4", "3", "4.1", "4.2", "5", "6", "7", "8", "9", "10", "11",
        "12",
    ]  # fmt: skip
    assert list(dict.fromkeys(row[0] for row in rows())) == list(sections())
    for section, text in sections().items():
        for item in items(text):
            assert any(item.startswith(words) for words in quoted(section)), item


def test_the_words_are_the_policys() -> None:
    for section, words in [row[:2] for row in rows()]:
        assert re.fullmatch("“.{5,}”", words)
        assert words.strip("“”") in flat(sections()[section]), words


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_promise_has_its_code_and_its_tests(row: list[str]) -> None:
    assert len(row) == 5
    assert re.fullmatch(r"(`[\w./-]+`( |$))+", row[3])
    assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+`( |$))+", row[4])
    for path in re.findall(r"`([^`]+)`", row[3]):
        assert (ROOT / path).is_file(), path
    for path, name in re.findall(r"`([^`:]+)::(\w+)`", row[4]):
        assert name in functions_of(path), name


def test_the_doctor_asks_for_what_only_an_operator_knows() -> None:
    def state(**environ: str) -> tuple[str, str]:
        (found,) = [one for one in examine_machine(load(environ)) if one.subject == "privacy"]
        return found.state, found.mend

    asked = "set privacy.controller, privacy.contact, privacy.hosting_region"
    assert state() == ("ok", asked)
    assert state(PAQETT_PAQETT__PUBLIC_URL="https://x.example.org") == ("warning", asked)
    said = {
        "PAQETT_PRIVACY__CONTROLLER": "Ada", "PAQETT_PRIVACY__CONTACT": "privacy@example.org",
        "PAQETT_PRIVACY__HOSTING_REGION": "Falkenstein",
    }  # fmt: skip
    assert state(**said) == ("ok", "")
