"""What the form of an alert rule says, in the words of the API."""

from collections.abc import Sequence
from typing import Any

from paqett.alert_rules import Rule, RuleChange, RuleIn
from paqett.conditions import IN_WORDS
from paqett.device_structs import Device
from paqett.errors import Invalid
from paqett.web.pages.forms import Form, convert, number

KINDS = {
    "threshold": "A value goes too far",
    "no_data": "Nothing comes",
    "offline": "A device is disconnected",
}
_FLAGS = {"true": True, "on": True, "false": False, "off": False}


def _level(text: str | None) -> float | bool | None:
    if text is not None and text.lower() in _FLAGS:
        return _FLAGS[text.lower()]
    return number(text, "threshold")


def given(form: Form) -> dict[str, Any]:
    """The members of a rule. Raises `Invalid`."""
    kind = form.text("kind")
    if kind not in KINDS:
        raise Invalid("Choose what the rule is about.", field="name")
    found: dict[str, Any] = {
        "name": form.text("name").strip(),
        "kind": kind,
        "device_id": form.given("device_id"),
        "enabled": form.has("enabled"),
        "for": form.given("for"),
    }
    if kind != "offline":
        found["metric"] = form.given("metric")
    if kind == "threshold":
        found |= {
            "operator": form.given("operator"),
            "threshold": _level(form.given("threshold")),
            "clear": number(form.given("clear"), "clear"),
        }
    return found


def wanted(form: Form) -> RuleIn:
    """The rule to make. Raises `Invalid`."""
    return convert(given(form), RuleIn)


def change(form: Form) -> RuleChange:
    """The same as a change of a rule, which stays of its kind. Raises `Invalid`."""
    members = given(form)
    members.pop("kind")
    return convert(members, RuleChange)


def span(seconds: int) -> str:
    """As it is typed: `90s`, `5m`, `1h`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def level(value: float | bool | None) -> str:
    """As it is typed, every digit of it: the form sends back what it was shown."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value).removesuffix(".0")


def in_words(rule: Rule, devices: Sequence[Device], unit: str = "") -> str:
    """The rule as a sentence, its level in the metric's unit."""
    named = {one.id: one.friendly_name or one.thing_name for one in devices}
    where = named.get(rule.device_id, rule.device_id) if rule.device_id else "every device"
    lasting = f" for {span(rule.for_)}" if rule.for_ else ""
    if rule.kind == "offline":
        return f"{where} is disconnected{lasting}"
    if rule.kind == "no_data":
        return f"nothing fresh of {rule.metric or 'any metric'} on {where}{lasting}"
    how = IN_WORDS[rule.operator] if rule.operator else ""
    measured = f"{level(rule.threshold)} {unit}".rstrip()
    return f"{rule.metric} on {where} is {how} {measured}{lasting}"
