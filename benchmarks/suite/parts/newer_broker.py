"""`end_to_end` once more, with a Mosquitto that is not the machine's own."""

import os
from typing import Any

from suite.form import Form
from suite.parts import end_to_end


def run(form: Form) -> dict[str, Any]:
    """Skipped where none is named."""
    if form.mosquitto is None:
        return {"skipped": "no other Mosquitto is named: --mosquitto PATH"}
    os.environ["PAQETT_BROKER__BINARY"] = form.mosquitto  # what a stand starts inherits it
    try:
        return end_to_end.run(form)
    finally:
        del os.environ["PAQETT_BROKER__BINARY"]
