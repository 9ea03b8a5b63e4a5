"""What is noted of one request on its way through the edge."""

from collections.abc import Mapping
from typing import Any

import msgspec

from paqett.principals import Principal
from paqett.tracing import NOTHING, Span

_KEY = "visit"


class Visit(msgspec.Struct):
    """`peer` is the address that is connected, before a proxy was believed; empty where unknown.

    `limits` are headers of the answer; `received` the bytes of the body so far.
    """

    request_id: str = ""
    peer: str = ""
    principal: Principal | None = None
    limits: dict[str, str] = msgspec.field(default_factory=dict)
    received: int = 0
    span: Span = NOTHING


def visit_of(scope: Mapping[str, Any]) -> Visit:
    """The notes on this request; new ones at its first look."""
    state = scope.get("state")
    if state is None:
        return Visit()
    found: Visit = state.setdefault(_KEY, Visit())
    return found
