"""How long everything runs: in full for the record, quick for a look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """`seconds` of load a run, `repeats` of the main figures, and the other lengths."""

    name: str
    seconds: float
    repeats: int
    ceiling_rows: int
    memory_rows: int
    probe_seconds: float
    py_spy: str | None
    mosquitto: str | None
    devices: int = 1000


def full(py_spy: str | None, mosquitto: str | None) -> Form:
    """The form whose results are kept."""
    return Form("full", 12.0, 3, 1_000_000, 10_000_000, 30.0, py_spy, mosquitto)


def quick(py_spy: str | None, mosquitto: str | None) -> Form:
    """A few seconds of load each."""
    return Form("quick", 3.0, 1, 300_000, 1_000_000, 6.0, py_spy, mosquitto)
