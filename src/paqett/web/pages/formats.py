"""Numbers with units and moments as pages write them."""

from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

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
_BUCKETS = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
}
_FULL_LINE = 60  # a shorter one ended where its writer wanted
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
            if passed > timedelta():
                return f"{plural(int(passed / length), unit)} ago"
            return f"in {plural(round(-passed / length), unit)}"
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
def exactly(context: Context, moment: datetime, *, seconds: bool = True) -> Markup:
    """A moment to the second or minute in the person's time zone, for tables of readings."""
    local = moment.astimezone(ZoneInfo(context["view"].time_zone))
    return Markup('<time datetime="{}"><span class="nowrap">{}</span> {}</time>').format(
        moment.isoformat(), local.strftime("%Y-%m-%d"),
        local.strftime("%H:%M:%S" if seconds else "%H:%M"),
    )  # fmt: skip


def bucket(text: str) -> str:
    """`15m` as `15 minutes`, and `1m` as `minute`, as it stands behind "every"."""
    count = text.rstrip("smhdwo")
    unit = _BUCKETS.get(text.removeprefix(count))
    if unit is None:
        return text
    return unit if count == "1" else f"{count}\u00a0{unit}s"


def unwrapped(text: str) -> str:
    """Text whose lines were broken to fit a page of paper, with whole paragraphs as lines."""
    lines: list[str] = []
    for line in text.splitlines():
        starts = not line.strip() or line.startswith("-") or line[:1].isdigit()
        if lines and not starts and len(lines[-1].rpartition("\n")[2]) > _FULL_LINE:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
    return "\n".join(line.replace("\n", " ") for line in lines)


def ticked(text: str) -> Markup:
    """Plain text in which what stands in backticks is code."""
    parts = text.split("`")
    told = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(
        piece for pair in zip_longest(map(escape, parts[::2]), told, fillvalue="") for piece in pair
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
    "bucket": bucket,
    "unwrapped": unwrapped,
    "ticked": ticked,
    "lasting": lasting,
    "words": words,
}
