"""Values of metrics: what is stored of a number, a word or a text (product contract: values)."""

from math import isfinite
from typing import Final, TypeAlias

from paqett.readings.timestamps import PayloadError, parse_number

Value: TypeAlias = float | bool | str

MAX_TEXT_BYTES: Final = 512
MAX_EXACT_INTEGER: Final = 2**53
_WORDS: Final[dict[str, bool | None]] = {
    "on": True,
    "off": False,
    "": None,
    "nan": None,
    "unknown": None,
    "unavailable": None,
}


def classify_value(value: object) -> Value | None:
    """Return the value as it is stored, or None for one to ignore (product contract: values).

    Numbers become float, bool and ON/OFF in any case bool, other strings stay text: "21.5" and
    "true" too. The words for "no value" and ON/OFF may have white space around them. Raises
    PayloadError ``bad_value`` for integers beyond ±2^53, numbers that are not finite, text beyond
    512 bytes of UTF-8 or that PostgreSQL cannot store (U+0000, lone surrogates), and all else.
    """
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        word = value.strip().lower()
        return _WORDS[word] if word in _WORDS else _check_text(value)
    if type(value) is float and isfinite(value):
        return value
    if type(value) is int:
        if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER:
            return float(value)
        raise PayloadError("bad_value", "an integer beyond 2^53 would not be stored exactly")
    if type(value) is float:
        raise PayloadError("bad_value", "the number is outside the range of a double")
    raise PayloadError("bad_value", "an array is not a value")


def kind_of(value: Value) -> str:
    """The kind a metric gets from its first value."""
    if value is True or value is False:
        return "boolean"
    return "text" if type(value) is str else "number"


def read_text(text: str) -> float | str:
    """Return the number that text outside JSON stands for, or the text; then `classify_value`."""
    number = parse_number(text)
    return text if number is None else number


def _check_text(text: str) -> str:
    if len(text) > MAX_TEXT_BYTES or "\0" in text:
        raise _bad_text()
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _bad_text() from None
    if size > MAX_TEXT_BYTES:
        raise _bad_text()
    return text


def _bad_text() -> PayloadError:
    return PayloadError(
        "bad_value", f"text is at most {MAX_TEXT_BYTES} bytes of valid UTF-8 without U+0000"
    )
