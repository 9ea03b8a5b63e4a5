"""Webhooks as Stripe sends them: signed, again until they are taken, in no order to rely on."""

import json
import queue
import random
import threading
import time

import httpx
import msgspec

from paqett.billing.client import sign
from paqett.local.fake_stripe.objects import Json

_AGAIN_S = (0.5, 2.0, 5.0, 15.0, 60.0)


class Switches(msgspec.Struct):
    """What goes wrong: each event `copies` times, late, out of order, never, or badly signed."""

    copies: int = 1
    delay_s: float = 0.0
    reorder: bool = False
    lose: bool = False
    bad_signature: bool = False


def signed(event: Json, secret: str, at: float | None = None) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one delivery."""
    body = json.dumps(event, indent=2)
    header = sign(body, secret, int(time.time() if at is None else at))
    return body.encode(), {"Stripe-Signature": header, "Content-Type": "application/json"}


class Webhooks:
    """A thread that delivers; `switches` may be changed at any time."""

    def __init__(self, url: str, secret: str) -> None:
        self.switches = Switches()
        self._url, self._secret = url, secret
        self._waiting: queue.PriorityQueue[tuple[float, int, int, Json]] = queue.PriorityQueue()
        self._number = 0
        self._stop = threading.Event()
        self._client = httpx.Client(timeout=10, trust_env=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Deliver nothing more."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    def put(self, event: Json) -> None:
        """Deliver it, as the switches say at this moment."""
        if self.switches.lose:
            return
        for _ in range(self.switches.copies):
            late_s = self.switches.delay_s
            if self.switches.reorder:
                late_s += random.uniform(0, 1.5)  # noqa: S311 - no secret
            self._later(late_s, 0, event)

    def _later(self, late_s: float, attempt: int, event: Json) -> None:
        self._number += 1
        self._waiting.put((time.monotonic() + late_s, self._number, attempt, event))

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            while not self._waiting.empty():
                due, number, attempt, event = self._waiting.get()
                if due > time.monotonic():
                    self._waiting.put((due, number, attempt, event))
                    break
                if not self._deliver(event) and attempt < len(_AGAIN_S):
                    self._later(_AGAIN_S[attempt], attempt + 1, event)

    def _deliver(self, event: Json) -> bool:
        secret = "whsec_wrong" if self.switches.bad_signature else self._secret
        body, headers = signed(event, secret)
        try:
            return self._client.post(self._url, content=body, headers=headers).is_success
        except httpx.HTTPError:
            return False
