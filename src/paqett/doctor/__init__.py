"""`paqett doctor`: what a deployment gets wrong, each finding with the way to mend it.

What asks others (mail server, Stripe, broker, the public address) is in `doctor.others`, apart:
the API examines without it.
"""

from paqett.doctor.database import Edition, edition, examine
from paqett.doctor.findings import Finding
from paqett.doctor.machine import examine_machine
from paqett.doctor.server import examine_server

__all__ = [
    "Edition", "Finding", "edition", "examine", "examine_machine", "examine_server",
]  # fmt: skip
