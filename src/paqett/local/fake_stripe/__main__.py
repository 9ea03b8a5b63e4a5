"""`python -m paqett.local.fake_stripe`: the fake of `paqett up --demo`, told by its environment."""

import os
import signal
import threading
from pathlib import Path

from paqett.local.fake_stripe.server import Server
from paqett.local.fake_stripe.webhooks import Webhooks

_EUR_9 = 900


def main() -> None:
    """Serve until SIGTERM; what was bought is kept in a file."""
    names = ("PORT", "SECRET_KEY", "WEBHOOK_SECRET", "WEBHOOK_URL", "FILE", "LOOKUP_KEYS")
    own = {name: os.environ[f"FAKE_STRIPE_{name}"] for name in names}
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    webhooks = Webhooks(own["WEBHOOK_URL"], own["WEBHOOK_SECRET"])
    server = Server(own["SECRET_KEY"], int(own["PORT"]), webhooks=webhooks, file=Path(own["FILE"]))
    with server:
        known = {price["lookup_key"] for price in server.fake.prices.values()}
        for key in own["LOOKUP_KEYS"].split(","):
            if key and key not in known:
                server.fake.add_price(key, _EUR_9)
        stop.wait()


if __name__ == "__main__":
    main()
