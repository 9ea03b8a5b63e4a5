"""Names of metrics: what they may be, and what a topic's path says (product contract: values)."""

from functools import lru_cache
from typing import Final

from paqett.readings.timestamps import PayloadError

MAX_PATH_LEVELS: Final = 5
MAX_NAME_CHARACTERS: Final = 128


def dotted_path(path: str) -> str:
    """Return the metric name, or its beginning, that a topic path of 1 to 5 levels stands for.

    Beyond 128 characters it is cut to 129, too long for a name either way. Raises PayloadError
    ``bad_topic`` for an empty level or more than five.
    """
    levels = path.split("/")
    if len(levels) > MAX_PATH_LEVELS or not all(levels):
        raise PayloadError(
            "bad_topic", f"a path has 1 to {MAX_PATH_LEVELS} levels, and none of them is empty"
        )
    return ".".join(levels)[: MAX_NAME_CHARACTERS + 1]


# One look-up costs less than the checks, and a fleet uses the same few names over and over.
@lru_cache(maxsize=16_384)
def check_metric_name(name: str) -> str:
    """Return the name as it is stored, ``/`` as ``.`` (product contract: values).

    Raises PayloadError ``bad_metric_name`` unless it has 1 to 128 characters, all printable as
    `str.isprintable` has it: no control or format characters, no lone surrogates, no white space
    but the plain space.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise PayloadError(
            "bad_metric_name",
            f"a metric name is 1 to {MAX_NAME_CHARACTERS} printable characters",
        )
    return name.replace("/", ".")


def printable(name: str) -> str:
    """A refused name as it can be shown and stored anywhere."""
    name = name[:MAX_NAME_CHARACTERS].replace("/", ".")
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
