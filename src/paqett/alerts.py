"""Alert rules and their alerts.

Rules judge readings in `readings/judge`, silence and connections in `alert_timers`.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from paqett import lists
from paqett.accounts import Account
from paqett.conditions import OPERATORS, Operator, State
from paqett.db import Connection
from paqett.device_structs import Name
from paqett.errors import Invalid, LimitReached, NotFound
from paqett.lists import Page
from paqett.plans import Plan
from paqett.sqlfiles import query

Kind = Literal["threshold", "no_data", "offline"]
Number = Annotated[float, msgspec.Meta(ge=-1e308, le=1e308)]
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,16}$")]
_DEFAULT_FOR_S = {"threshold": 0, "no_data": 900, "offline": 60}
_LEAST_FOR_S = {"threshold": 0, "no_data": 10, "offline": 0}
_MOST_FOR_S = 7 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,7})(s|m|h|d)")
_CONDITION = ("device_id", "metric", "operator", "threshold", "clear", "for_", "enabled")


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


class Alert(msgspec.Struct, frozen=True):
    """A rule that holds or held on a device.

    `since` is when the condition began, `value` what was measured then. `reason` is why it is as
    it is: threshold, no_data, offline; data_returned, online; rule_changed, rule_deleted,
    rule_paused, device_paused, metric_gone.
    """

    id: int
    rule_id: int | None
    rule_name: str
    kind: Kind
    device: str
    metric: str | None
    state: State
    since: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    value: float | None
    resolved_value: float | None
    reason: str


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


def _columns(wanted: RuleIn) -> dict[str, Any]:
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


async def units(conn: Connection, account: Account) -> dict[int, str]:
    """What the levels of rules are measured in, by the rule's id, where the metric has a unit."""
    rows = await conn.execute(query("units_of_rules"), {"account": account.id})
    return {row["id"]: row["unit"] for row in await rows.fetchall()}


def _rule(row: dict[str, Any]) -> Rule:
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
    columns = {**_columns(wanted), "id": 0, "paused_at": None, "created_at": now}
    renamed = {"device_id": columns["device"], "for_s": columns["for"]}
    return _rule({**columns, **renamed})


async def create(
    conn: Connection, account: Account, plan: Plan, wanted: RuleIn, now: datetime
) -> Rule:
    """Make a rule; the next flush knows it.

    Raises `Invalid`, `LimitReached`, `NotFound` for a device that is not the account's.
    """
    columns = _columns(wanted)
    await _begin_change(conn, account, wanted.device_id)
    row = await (await conn.execute(query("count_rules"), {"account": account.id})).fetchone()
    most = plan.alert_rules
    if most is not None and row is not None and row["rules"] >= most:
        raise LimitReached(
            f"The plan {plan.name} allows {most} alert rules.",
            extra={"limit": most, "field": "alert_rules"},
        )
    values = {**columns, "account": account.id, "now": now}
    made = await (await conn.execute(query("create_rule"), values)).fetchone()
    return _rule(made or {})


async def _begin_change(conn: Connection, account: Account, device_id: str | None) -> None:
    """The directory's lock before any other, then the account's alerts. Raises `NotFound`."""
    await conn.execute(query("lock_directory"))
    await conn.execute(query("lock_rule_count"), {"account": account.id})
    if device_id is not None:
        values = {"account": account.id, "id": device_id}
        if await (await conn.execute(query("get_device"), values)).fetchone() is None:
            raise NotFound(f"There is no device {device_id}.")


async def list_rules(
    conn: Connection, account: Account, *, devices: list[str] | None, limit: int, cursor: str | None
) -> Page:
    """A page of rules in the order they were made; with `devices` those about one of these.

    Raises `Invalid` for a cursor that is not ours.
    """
    values = {
        "account": account.id, "devices": devices, "after": lists.read_id(cursor) or 0,
        "limit": limit + 1,
    }  # fmt: skip
    rows = await (await conn.execute(query("list_rules"), values)).fetchall()
    return Page([_rule(row) for row in rows[:limit]], lists.next_id(rows, limit))


async def get(conn: Connection, account: Account, rule_id: int, devices: list[str] | None) -> Rule:
    """One rule. Raises `NotFound`, also for one that is about none of `devices`."""
    return _rule(await _row(conn, account, rule_id, devices))


async def _row(
    conn: Connection, account: Account, rule_id: int, devices: list[str] | None
) -> dict[str, Any]:
    row = None
    if 0 < rule_id < 2**31:
        values = {"account": account.id, "rule": rule_id, "devices": devices}
        row = await (await conn.execute(query("get_rule"), values)).fetchone()
    if row is None:
        raise NotFound(f"There is no alert rule {rule_id}.")
    return row


async def update(
    conn: Connection, account: Account, rule_id: int, change: RuleChange,
    devices: list[str] | None, now: datetime,
) -> Rule:  # fmt: skip
    """Change a rule. Where its condition changes, what it held on ends, and it begins anew.

    Raises as `create` does, and `NotFound`.
    """
    given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not msgspec.UNSET}
    await _row(conn, account, rule_id, devices)
    await _begin_change(conn, account, given.get("device_id"))
    before = await _row(conn, account, rule_id, devices)
    old = _rule(before)
    fields = {name: getattr(old, name) for name in ("name", "kind", *_CONDITION)} | given
    columns = _columns(RuleIn(**fields))
    anew = any(getattr(old, name) != fields[name] for name in _CONDITION)
    changed = now if anew else before["changed_at"]
    await conn.execute(
        query("update_rule"),
        {**columns, "account": account.id, "rule": rule_id, "changed": changed},
    )
    if anew:
        await end_alerts(conn, account.id, rule_id, "rule_changed", now)
    return await get(conn, account, rule_id, None)


async def delete(
    conn: Connection, account: Account, rule_id: int, devices: list[str] | None, now: datetime
) -> None:
    """Delete a rule; its past alerts stay listed. Raises `NotFound`."""
    await _row(conn, account, rule_id, devices)
    await _begin_change(conn, account, None)
    await end_alerts(conn, account.id, rule_id, "rule_deleted", now)
    values = {"account": account.id, "rule": rule_id}
    gone = await (await conn.execute(query("delete_rule"), values)).fetchone()
    if gone is not None and gone["paused_at"] is None:
        await conn.execute(query("resume_oldest_rule"), {"account": account.id, "now": now})


async def end_alerts(
    conn: Connection, account_id: int, rule_id: int, reason: str, now: datetime
) -> None:
    """What the rule held on holds no longer, and nobody is told; the account's alerts are held."""
    values = {"account": account_id, "rule": rule_id, "reason": reason, "now": now}
    await conn.execute(query("end_alerts_of_rule"), values)
    await conn.execute(query("drop_pending_of_rule"), values)


async def list_alerts(
    conn: Connection, account: Account, *, state: State | None, rule: int | None,
    devices: list[str] | None, limit: int, cursor: str | None,
) -> Page:  # fmt: skip
    """A page of alerts, newest first; with `devices` those on one of these.

    Raises `Invalid` for a cursor that is not ours.
    """
    values = {
        "account": account.id, "state": state, "rule": rule, "devices": devices,
        "before": lists.read_id(cursor), "limit": limit + 1,
    }  # fmt: skip
    rows = await (await conn.execute(query("list_alerts"), values)).fetchall()
    items = [msgspec.convert({**row, "device": row["device_id"]}, Alert) for row in rows[:limit]]
    return Page(items, lists.next_id(rows, limit))
