"""With readings that come again: the same (device, ts) as a message sent 41 before.

Rates count the points that were published; the duplicates among them are stored once.
"""

from typing import Any

from paqett.local.shape import Shape
from suite.form import Form
from suite.measured import interleaved, sized
from suite.stand import stand


def run(form: Form) -> dict[str, Any]:
    """One in a hundred, and every second message."""
    figures = []
    with stand(form.devices) as made:
        made.start()
        for name, every in (("1 % duplicates", 100), ("50 % duplicates", 2)):
            load = sized(made, Shape(repeat_every=every), form.seconds)
            figures.append(interleaved(made, name, load, form))
    return {"figures": figures}
