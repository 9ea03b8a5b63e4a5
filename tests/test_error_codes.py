"""Every code a client may be told stands in docs/errors.md, with its status, and none too many."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import paqett
from paqett.errors import Problem
from paqett.web import problems

ROOT = Path(__file__).parents[1]
# calls whose words are codes
_TELLERS = {"answer", "Rejection", "PayloadError", "_refuse_message", "_Unprocessable"}
_PART = re.compile(r"^### (\w+)\n(?:(\d{3})\.)?", re.MULTILINE)


def documented() -> dict[str, str]:
    """Each code and its status, empty where there is none."""
    return dict(_PART.findall((ROOT / "docs" / "errors.md").read_text()))


def kinds(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    for module in pkgutil.walk_packages(paqett.__path__, "paqett."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for sub in kind.__subclasses__():
        yield sub
        yield from kinds(sub)


def written() -> Iterator[str]:
    """Codes that stand in the source as words."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                words = node.args[:3] if name in _TELLERS else []
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
                words = [node.value]
            else:
                continue
            for word in words:
                if isinstance(word, ast.Constant) and re.fullmatch("[a-z_]+", str(word.value)):
                    yield str(word.value)


def test_every_code_is_documented_with_its_status() -> None:
    found = documented()
    assert len(found) > 40
    for kind in kinds():
        assert kind.code in found, kind
        if kind.code != Problem.code:  # a base that is never raised itself
            assert found[kind.code] == str(kind.status), kind
    for status, (code, _) in problems._CODES.items():
        if status != 400:  # told as 422
            assert found[code] == str(status), code
    assert set(written()) <= set(found)


def test_no_code_is_documented_that_nothing_tells() -> None:
    told = {kind.code for kind in kinds()} | {code for code, _ in problems._CODES.values()}
    told |= set(written()) | {"http_error", "internal_error"}
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert {
        code for code in documented() if code not in told and f'"{code}"' not in source
    } == set()
