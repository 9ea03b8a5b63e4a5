"""Bytes that fuzzing has found a way through the code with, or a fault; each must hold."""

import pytest

from fuzzed import CORPUS, TARGETS

MOST_BYTES = 300_000


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_whatever_is_in_the_corpus_holds(target: str) -> None:
    files = sorted((CORPUS / target).iterdir())
    assert len(files) > 50
    for file in files:
        try:
            TARGETS[target](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{target}/{file.name}") from error


def test_the_corpus_stays_small() -> None:
    assert sum(file.stat().st_size for file in CORPUS.rglob("*")) < MOST_BYTES


def test_a_target_notices_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paqett.readings.values.MAX_TEXT_BYTES", 1000)
    with pytest.raises(AssertionError):
        TARGETS["payload"](b'\0{"mode":"' + b"x" * 600 + b'"}')


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("payload", b""),
        ("payload", b"\0[" + b"[" * 100_000),
        ("topic", b""),
        ("topic", b"d/" * 999),
    ],
)
def test_what_is_empty_or_endless_holds(target: str, data: bytes) -> None:
    TARGETS[target](data)
