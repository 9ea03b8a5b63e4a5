"""What an alert rule may say, how it is stored and how it is shown. Pure."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from paqett.conditions import OPERATORS, Operator
from paqett.device_structs import Name
from paqett.errors import Invalid

Kind = Literal["threshold", "no_data", "offline"]
Number = Annotated[float, msgspec.Meta(ge=-1e308, le=1e308)]
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,16}$")]
_DEFAULT_FOR_S = {"threshold": 0, "no_data": 900, "offline": 60}
_LEAST_FOR_S = {"threshold": 0, "no_data": 10, "offline": 0}
_MOST_FOR_S = 7 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,7})(s|m|h|d)")


class RuleIn(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    """A rule to make; without `device_id` for every device that has the metric, later ones too.

    `threshold`: alerts while the metric is `operator` `threshold` (a number, or true or false with
    == and !=), resolves at `clear`, which is the threshold itself unless given. `no_data`: alerts
    when nothing fresh came of the metric, or without one of the device. `offline`: when the device
    is disconnected. Each only after `for`: seconds, or a text like 90s, 5m, 1h.
    """

    name: Name
    kind: Kind
    device_id: Id | None = None
    metric: Name | None = None
    operator: Operator | None = None
    threshold: Number | bool | None = None
    clear: Number | None = None
    for_: int | str | None = None
    enabled: bool = True


class RuleChange(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    """What to change; null clears, what is left out stays. A rule stays of its kind."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    device_id: Id | msgspec.UnsetType | None = msgspec.UNSET
    metric: Name | msgspec.UnsetType | None = msgspec.UNSET
    operator: Operator | msgspec.UnsetType | None = msgspec.UNSET
    threshold: Number | bool | msgspec.UnsetType | None = msgspec.UNSET
    clear: Number | msgspec.UnsetType | None = msgspec.UNSET
    for_: int | str | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class Rule(msgspec.Struct, frozen=True, rename={"for_": "for"}):
    """A rule; `for` in seconds, `firing` on how many devices it holds at the moment.

    It is not judged from `paused_at` on, where the account's plan has room for older rules only.
    """

    id: int
    name: str
    kind: Kind
    device_id: str | None
    metric: str | None
    operator: Operator | None
    threshold: float | bool | None
    clear: float | None
    for_: int
    enabled: bool
    paused_at: datetime | None
    firing: int
    created_at: datetime


def seconds(given: int | str | None, kind: Kind) -> int:
    """`for` in seconds. Raises `Invalid`."""
    if given is None:
        return _DEFAULT_FOR_S[kind]
    if isinstance(given, str):
        found = _DURATION.fullmatch(given)
        if found is None:
            raise Invalid("for is a number of seconds, or a text like 90s, 5m, 1h.", field="for")
        given = int(found[1]) * _UNITS[found[2]]
    least = _LEAST_FOR_S[kind]
    if not least <= given <= _MOST_FOR_S:
        raise Invalid(f"for lies between {least} s and 7 days.", field="for")
    return given


def columns_of(wanted: RuleIn) -> dict[str, Any]:
    """The rule as it is stored. Raises `Invalid`, naming the member at fault."""
    if wanted.kind == "threshold":
        _check_threshold(wanted)
    else:
        for field in ("operator", "threshold", "clear"):
            if getattr(wanted, field) is not None:
                raise Invalid(f"{field} belongs to rules of kind threshold.", field=field)
        if wanted.kind == "offline" and wanted.metric is not None:
            raise Invalid(
                "A rule of kind offline is about the device: leave out metric.", field="metric"
            )
    is_flag = isinstance(wanted.threshold, bool)
    return {
        "name": wanted.name,
        "kind": wanted.kind,
        "device": wanted.device_id,
        "metric": wanted.metric,
        "operator": wanted.operator,
        "threshold": None if wanted.threshold is None else float(wanted.threshold),
        "clear": wanted.clear,
        "is_flag": is_flag,
        "for": seconds(wanted.for_, wanted.kind),
        "enabled": wanted.enabled,
    }


def _check_threshold(wanted: RuleIn) -> None:
    for field in ("metric", "operator", "threshold"):
        if getattr(wanted, field) is None:
            raise Invalid(f"A rule of kind threshold needs {field}.", field=field)
    equality = wanted.operator in ("==", "!=")
    if isinstance(wanted.threshold, bool) and not equality:
        raise Invalid("true and false are compared with == or !=.", field="operator")
    if wanted.clear is None or wanted.operator is None or wanted.threshold is None:
        return
    below, _, above = OPERATORS[wanted.operator]
    if equality:
        raise Invalid("== and != resolve as soon as they no longer hold.", field="clear")
    if (above and wanted.clear > wanted.threshold) or (below and wanted.clear < wanted.threshold):
        side = "above" if above else "below"
        raise Invalid(f"clear lies {side} the threshold, so it would never resolve.", field="clear")


def rule_of(row: dict[str, Any]) -> Rule:
    """A stored rule, with on how many devices it holds where that was asked."""
    threshold = row["threshold"]
    if row["is_flag"]:
        threshold = bool(threshold)
    return Rule(
        row["id"], row["name"], row["kind"], row["device_id"], row["metric"], row["operator"],
        threshold, row["clear"], row["for_s"], row["enabled"], row["paused_at"],
        row.get("firing", 0), row["created_at"],
    )  # fmt: skip


def draft(wanted: RuleIn, now: datetime) -> Rule:
    """The rule as it would be, stored nowhere: to see what it would have done. Raises `Invalid`."""
    columns = {**columns_of(wanted), "id": 0, "paused_at": None, "created_at": now}
    renamed = {"device_id": columns["device"], "for_s": columns["for"]}
    return rule_of({**columns, **renamed})
