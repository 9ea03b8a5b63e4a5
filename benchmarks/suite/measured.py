"""A run between two ceilings, sized so that the load lasts as long as the form asks."""

from statistics import mean, median
from typing import Any

from paqett.local.shape import Shape
from suite import ceiling
from suite.form import Form
from suite.load import Load, Run, drive
from suite.stand import Stand

SINGLE = Shape()
TENS = Shape(items=10)


def sized(stand: Stand, shape: Shape, seconds: float, *, qos: int = 1, tls: bool = False) -> Load:
    """A load of about `seconds`, by the rate of a short one, which also makes the series."""
    drive(stand, Load(shape, len(stand.devices)))
    trial = 20_000 if shape.points < 20 else 6_000
    rate = drive(stand, Load(shape, trial, qos, tls)).messages_per_second
    devices = len(stand.devices)
    messages = max(devices, round(rate * seconds * 1.1 / devices) * devices)
    return Load(shape, messages, qos, tls)


def figure(name: str, run: Run, before: float, after: float) -> dict[str, Any]:
    """A run and the ceilings measured right before and right after it."""
    ceiling_mean = mean((before, after))
    return {
        "name": name,
        **run.report(),
        "ceiling_before": round(before),
        "ceiling_after": round(after),
        "of_ceiling": round(run.rows_per_second / ceiling_mean, 3),
    }


def interleaved(
    stand: Stand, name: str, load: Load, form: Form, repeats: int = 1
) -> dict[str, Any]:
    """Ceiling, run, ceiling, run, …, ceiling; the figure is the run of median ratio."""
    ceilings = [ceiling.measure(stand, load.shape, form.ceiling_rows)]
    runs = []
    for _ in range(repeats):
        run = drive(stand, load)
        ceilings.append(ceiling.measure(stand, load.shape, form.ceiling_rows))
        runs.append(figure(name, run, ceilings[-2], ceilings[-1]))
    ratios = [run["of_ceiling"] for run in runs]
    middle = sorted(runs, key=lambda run: run["of_ceiling"])[len(runs) // 2]
    return middle | {"of_ceiling_runs": ratios, "of_ceiling_median": round(median(ratios), 3)}
