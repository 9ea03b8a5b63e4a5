"""The pages that say what the program knows are what it knows; calls that docs name exist."""

import re
import tomllib

import pytest

import reference
from blocks import PAGES, ROOT

_CALL = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE)\s+(/[a-z][\w/{}…-]*)")


@pytest.mark.parametrize("name", ["api.md", "cli.md", "settings.md"])
def test_the_page_is_as_the_program_says(name: str) -> None:
    written = (ROOT / "docs" / name).read_text()
    assert written == reference.pages()[name], "run `make reference`"


def test_every_setting_is_named_with_its_default() -> None:
    shipped = tomllib.loads((ROOT / "config" / "paqett.toml").read_text())
    named = {
        (section, key): tomllib.loads(f"value = {default}")["value"]
        for section, key, default, _ in reference.settings()
    }
    assert named == {
        (section, key): value for section, keys in shipped.items() for key, value in keys.items()
    }


def test_every_command_and_flag_says_what_it_does() -> None:
    found = list(reference.commands())
    assert len(found) > 30
    assert [name for name, about, _ in found if not about] == []


def test_every_call_says_what_it_does_and_who_may() -> None:
    found = list(reference.operations())
    assert len(found) > 60
    assert [call for call in found if not all(call)] == []


def test_every_call_that_a_page_names_exists() -> None:
    calls = [(method, _pattern(path)) for _, method, path, _, _ in reference.operations()]
    for page in PAGES:
        for method, path in _CALL.findall(page.read_text()):
            named = path if path.startswith(("/api/", "/hooks/")) else f"/api/v1{path}"
            known = any(method == verb and pattern.fullmatch(named) for verb, pattern in calls)
            assert known, f"{page.name}: {method} {path}"


def _pattern(path: str) -> re.Pattern[str]:
    """Whatever stands for its parameters."""
    return re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))
