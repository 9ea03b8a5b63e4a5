"""How pages write numbers and moments."""

from datetime import UTC, datetime, timedelta

import pytest

from paqett.errors import Invalid
from paqett.web.pages import formats, rules, words
from paqett.web.pages.forms import convert, number
from paqett.web.sign_in import Credentials

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=1), "1\u00a0second ago"),
        (timedelta(minutes=3), "3\u00a0minutes ago"),
        (timedelta(days=800), "2\u00a0years ago"),
        (timedelta(hours=-2), "in 2\u00a0hours"),
    ],
)
def test_moments_are_told_from_now(passed: timedelta, said: str) -> None:
    assert formats.ago(NOW - passed, NOW) == said


def test_numbers_have_units_and_none_is_no_limit() -> None:
    assert formats.number(5_000_000, "points") == "5,000,000\u00a0points"
    assert formats.number(21.25) == "21.25"
    assert formats.number(None) == "no limit"
    assert formats.size(999) == "999\u00a0bytes"
    assert formats.size(1_400_000) == "1.4\u00a0MB"
    assert formats.money(900, "eur") == "9.00 EUR"
    assert formats.money(900, "jpy") == "900 JPY"


@pytest.mark.parametrize(("text", "value"), [("21.5", 21.5), ("21,5", 21.5), (" -3 ", -3.0)])
def test_a_number_is_read_as_people_type_it(text: str, value: float) -> None:
    assert number(text, "x") == value


@pytest.mark.parametrize("text", ["hot", "nan", "inf", "1e999", "1 000"])
def test_what_is_no_number_is_refused_at_its_field(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        number(text, "level")
    assert caught.value.extra == {"field": "level"}


def test_what_the_api_refuses_is_told_in_words() -> None:
    with pytest.raises(Invalid) as caught:
        convert({"email": "x", "password": ""}, Credentials)
    assert (caught.value.detail, caught.value.extra) == (
        "This must not be empty.",
        {"field": "password"},
    )


@pytest.mark.parametrize(
    ("seconds", "typed"),
    [
        (0, "0s"),
        (90, "90s"),
        (300, "5m"),
        (3600, "1h"),
        (86_400, "1d"),
    ],
)
def test_a_span_is_shown_as_it_is_typed(seconds: int, typed: str) -> None:
    assert rules.span(seconds) == typed


def test_every_kind_of_validation_message_has_words() -> None:
    for message in (
        "Expected `str`, got `int`",
        "Expected `int`, got `str`",
        "Expected `datetime`, got `str`",
        "Object missing required field `x`",
        "Expected `str` matching regex 'x'",
        "Expected `float` <= 5.0",
        "Expected `array` of length <= 9",
        "Invalid RFC3339 encoded",
    ):
        said = words.in_words(message)
        assert said.endswith(".")
        assert "`" not in said


@pytest.mark.parametrize(
    ("value", "typed"),
    [(1234567.8, "1234567.8"), (0.1, "0.1"), (21.0, "21"), (-3, "-3"), (1e300, "1e+300")],
)
def test_a_level_of_a_rule_is_sent_back_as_it_was(value: float, typed: str) -> None:
    """Opening a rule's form and saving it changes no digit."""
    assert rules.level(value) == typed
    assert number(typed, "threshold") == value
