"""Messages at QoS 1, durably acknowledged, from the first publish to the commit of the last."""

from typing import Any

from suite.form import Form
from suite.measured import SINGLE, TENS, interleaved, sized
from suite.stand import stand


def run(form: Form) -> dict[str, Any]:
    """One message of 3 metrics at a time, and messages of 10 readings of 3 metrics."""
    figures = []
    with stand(form.devices) as made:
        made.start()
        for name, shape in (("messages of 3 points", SINGLE), ("messages of 30 points", TENS)):
            load = sized(made, shape, form.seconds)
            figures.append(interleaved(made, name, load, form, form.repeats))
    return {"figures": figures}
