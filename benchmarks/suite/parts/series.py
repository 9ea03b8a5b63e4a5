"""The rate with few and with very many series.

The form is the same each time, messages of 10 readings of one metric: a device goes through its
metrics in turn. All series exist and have a reading before the clock starts.
"""

from typing import Any

from paqett.local.shape import Shape
from suite.form import Form
from suite.measured import interleaved, sized
from suite.stand import stand

METRICS = (1, 100, 1000)


def run(form: Form) -> dict[str, Any]:
    """A stand for each number of series."""
    figures = []
    for count in METRICS:
        metrics = [f"m{number:04}" for number in range(count)]
        shape = Shape(items=10, metrics=metrics, per_item=1)
        with stand(form.devices) as made:
            made.create_series(metrics)
            made.start()
            load = sized(made, shape, form.seconds)
            name = f"{count * form.devices:,} series"
            figures.append(interleaved(made, name, load, form))
    return {"figures": figures}
