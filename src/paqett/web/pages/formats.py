"""Numbers with units and moments as pages write them."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from paqett.mail_rendering import lasting, local_time

_SPANS = (
    (timedelta(days=365), "year"), (timedelta(days=30), "month"), (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"),
    (timedelta(seconds=1), "second"),
)  # fmt: skip
# currencies without a smaller unit, as Stripe counts them
_WHOLE = frozenset(
    [
        "bif",
        "clp",
        "djf",
        "gnf",
        "jpy",
        "kmf",
        "krw",
        "mga",
        "pyg",
        "rwf",
        "ugx",
        "vnd",
        "vuv",
        "xaf",
        "xof",
        "xpf",
    ]
)
_BYTES = ("bytes", "KB", "MB", "GB", "TB")


def number(value: float | None, unit: str = "", none: str = "no limit") -> str:
    """`5,000,000 points`; a whole number without decimals; `none` for None."""
    if value is None:
        return none
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
    return f"{text}\u00a0{unit}" if unit else text


def size(value: float) -> str:
    """`1.4 MB`, of 1,000 bytes each step."""
    step = 0
    while abs(value) >= 1000 and step < len(_BYTES) - 1:
        value, step = value / 1000, step + 1
    return f"{value:,.0f}\u00a0bytes" if step == 0 else f"{value:,.1f}\u00a0{_BYTES[step]}"


def money(amount: int, currency: str) -> str:
    """An amount in the currency's smallest unit: `9.00 EUR`, `900 JPY`."""
    plain = currency.lower() in _WHOLE
    return f"{amount:,} {currency.upper()}" if plain else f"{amount / 100:,.2f} {currency.upper()}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 device`, `3 devices`."""
    return f"{count:,}\u00a0{one if count == 1 else many or one + 's'}"


def ago(moment: datetime, now: datetime) -> str:
    """`3 minutes ago`, `in 2 hours`, `just now`."""
    passed = now - moment
    for length, unit in _SPANS:
        if abs(passed) >= length:
            count = plural(int(abs(passed) / length), unit)
            return f"{count} ago" if passed > timedelta() else f"in {count}"
    return "just now"


@pass_context
def when(context: Context, moment: datetime | None, none: str = "never") -> Markup | str:
    """A moment in the person's time zone, exact and relative, for programs too."""
    if moment is None:
        return none
    view: Any = context["view"]
    return Markup('<time datetime="{}">{} <span class="soft">{}</span></time>').format(
        moment.isoformat(), local_time(moment, view.time_zone), ago(moment, view.now)
    )


@pass_context
def briefly(context: Context, moment: datetime | None, none: str = "never") -> Markup | str:
    """The same where there is little room: relative, and exact where it is pointed at."""
    if moment is None:
        return none
    view: Any = context["view"]
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), local_time(moment, view.time_zone), ago(moment, view.now)
    )


@pass_context
def exactly(context: Context, moment: datetime) -> Markup:
    """A moment to the second in the person's time zone, for tables of readings."""
    local = moment.astimezone(ZoneInfo(context["view"].time_zone))
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(), local.strftime("%Y-%m-%d %H:%M:%S")
    )


def words(text: str) -> Markup:
    """Paragraphs of plain text."""
    return Markup("").join(Markup("<p>{}</p>").format(part) for part in text.split("\n\n") if part)


FILTERS = {
    "money": money,
    "number": number,
    "size": size,
    "plural": plural,
    "when": when,
    "briefly": briefly,
    "exactly": exactly,
    "lasting": lasting,
    "words": words,
}
