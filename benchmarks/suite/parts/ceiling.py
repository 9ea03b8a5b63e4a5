"""The ceiling alone, for both forms of message."""

from typing import Any

from suite import ceiling
from suite.form import Form
from suite.load import Load, drive
from suite.measured import SINGLE, TENS
from suite.stand import stand


def run(form: Form) -> dict[str, Any]:
    """Three times each, by turns: the spread is the machine's noise."""
    rates: dict[str, list[int]] = {"messages of 3 points": [], "messages of 30 points": []}
    with stand(form.devices) as made:
        made.start()
        drive(made, Load(SINGLE, form.devices))
        for _ in range(3):
            for name, shape in zip(rates, (SINGLE, TENS), strict=True):
                rates[name].append(round(ceiling.measure(made, shape, form.ceiling_rows)))
    return {"figures": [{"name": name, "ceilings": each} for name, each in rates.items()]}
