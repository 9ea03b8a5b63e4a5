"""The devices' side of the broker otherwise: over TLS, and at QoS 0.

TLS is on the devices' listener alone; a certificate authority is made for the run.
"""

from typing import Any

from suite.form import Form
from suite.measured import SINGLE, interleaved, sized
from suite.stand import stand


def run(form: Form) -> dict[str, Any]:
    """Messages of 3 points; at QoS 0 what is lost shows in `stored`."""
    figures = []
    with stand(form.devices) as made:
        made.start()
        load = sized(made, SINGLE, form.seconds, tls=True)
        figures.append(interleaved(made, "TLS, messages of 3 points", load, form))
        load = sized(made, SINGLE, form.seconds, qos=0)
        figures.append(interleaved(made, "QoS 0, messages of 3 points", load, form))
    return {"figures": figures}
