"""`paqett ingest` that kills itself where it would acknowledge for the n-th time.

The n is PAQETT_TEST_DIES_AT. What that acknowledgement is about has been committed, or is in the
spool, and the broker will send it again.
"""

import os
import signal
import sys
from collections.abc import Iterable
from itertools import count

from paqett.cli import main
from paqett.mqtt.consumer import Consumer, Message

_calls = count(1)
_dies_at = int(os.environ["PAQETT_TEST_DIES_AT"])
_acknowledge = Consumer.acknowledge


def _acknowledge_or_die(self: Consumer, messages: Iterable[Message]) -> None:
    if next(_calls) == _dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    _acknowledge(self, messages)


Consumer.acknowledge = _acknowledge_or_die  # type: ignore[method-assign]
sys.exit(main(["ingest"]))
