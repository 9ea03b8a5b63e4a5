"""TLS wherever a reading passes, and QoS 0.

TLS is on the devices' listener, between broker and ingest, and between ingest and PostgreSQL, each
verified against a certificate authority made for the run. The ceiling is measured without.
"""

from typing import Any

from suite.form import Form
from suite.measured import SINGLE, interleaved, sized
from suite.stand import stand


def run(form: Form) -> dict[str, Any]:
    """Messages of 3 points; at QoS 0 what is lost shows in `stored`."""
    figures = []
    with stand(form.devices, tls=True) as made:
        made.start()
        load = sized(made, SINGLE, form.seconds, tls=True)
        figures.append(interleaved(made, "TLS, messages of 3 points", load, form))
        made.require_tls()
    with stand(form.devices) as made:
        made.start()
        load = sized(made, SINGLE, form.seconds, qos=0)
        figures.append(interleaved(made, "QoS 0, messages of 3 points", load, form))
    return {"figures": figures}
