"""Everything people are told about: each event's kind, and its words. A new event is one entry.

`text` and `title` may name data as `{name}`; `facts` are the lines below the text, label by name of
the data, and those that were not given are left out. Data whose name ends in `time` or `_at` are
moments, shown in the account's time zone.
"""

from collections.abc import Mapping
from datetime import datetime
from string import Formatter
from typing import Any, Literal

import msgspec

from paqett.mail_rendering import local_time

Kind = Literal["device", "usage", "billing", "security", "export"]
# those somebody may do without; security is told in any case
OPTIONAL_KINDS: tuple[Kind, ...] = ("device", "usage", "billing", "export")
_EXPORT = ("Export all my data", "/settings")
_NOT_YOU = (
    "If this was not you, reset your password at once and look through your sessions and keys."
)


class Event(msgspec.Struct, frozen=True):
    """What happened, in words a person reads; not `mailed` is what the list alone tells.

    `page` is where on our pages something is to be done: what its button says, and its path.
    """

    kind: Kind
    title: str
    text: str
    facts: dict[str, str] = {}
    mailed: bool = True
    page: tuple[str, str] | None = None

    @property
    def needs(self) -> set[str]:
        """The data its words name: without them nothing can be told."""
        return {name for _, name, _, _ in Formatter().parse(self.title + self.text) if name}


class Described(msgspec.Struct, frozen=True):
    """An event with its data filled in, and the page its button leads to."""

    title: str
    text: str
    facts: list[tuple[str, str]]
    page: tuple[str, str] | None = None


EVENTS: dict[str, Event] = {
    "new_sign_in": Event(
        "security",
        "New sign-in to your account",
        f"Somebody signed in to your account from an address that was not known yet. {_NOT_YOU}",
        {"When": "time", "From": "ip", "With": "agent", "How": "method"},
    ),
    "key_created": Event(
        "security",
        "A new API key",
        f"An API key was made for your account. {_NOT_YOU}",
        {"Name": "name", "Begins with": "hint"},
    ),
    "key_deleted": Event(
        "security",
        "An API key was deleted",
        f"An API key of your account was deleted and no longer works. {_NOT_YOU}",
        {"Name": "name", "Began with": "hint"},
    ),
    "password_changed": Event(
        "security",
        "Your password was changed",
        f"The password of your account was changed, and other sessions were ended. {_NOT_YOU}",
    ),
    "email_changed": Event(
        "security",
        "Your e-mail address was changed",
        "Your account has a new e-mail address; this one is no longer used. If this was not you,"
        " answer to whoever runs this installation at once.",
    ),
    "identity_linked": Event(
        "security",
        "Another way to sign in",
        f"Your account can now also be reached by signing in elsewhere. {_NOT_YOU}",
        {"With": "provider"},
    ),
    "operator_access": Event(
        "security",
        "An operator worked on your account",
        "An operator of this installation looked at or changed something of your account. Operators"
        " see counts and states, never readings.",
        {"What": "what", "Who": "by"},
        mailed=False, # it may be many a day; the list of notices shows each
    ),
    "alert_firing": Event(
        "device",
        "Alert: {rule} on {device_name}",
        "{what}.",
        {"Device": "device_name", "Since": "since_time", "Alert since": "fired_time"},
    ),
    "alert_resolved": Event(
        "device",
        "Resolved: {rule} on {device_name}",
        "{what}.",
        {"Device": "device_name", "Alert from": "fired_time", "To": "resolved_time"},
    ),
    "mails_held_back": Event(
        "device",
        "Notices that were not mailed",
        "On {day} your account had more notices than are mailed in a day. {held} of them were held"
        " back; each stands in the list of your notices.",
        {"Held back": "what"},
    ),
    "channel_test": Event(
        "device",
        "A test of your alerts",
        "You asked for this test. Alerts and other notices of your account arrive this way.",
    ),
    "channel_created": Event(
        "security",
        "A new webhook",
        f"Notices of your account are now also sent to an address on the web. {_NOT_YOU}",
        {"Name": "name", "Address": "host"},
    ),
    "channel_paused": Event(
        "security",
        "A webhook was paused",
        "Notices of your account could not be delivered to this webhook {failures} times in a row,"
        " so no more are sent there. Mend it and send a test: a test that succeeds lets it go on.",
        {"Name": "name", "Address": "host", "The last time": "error"},
    ),
    "policy_changed": Event(
        "security",
        "The privacy policy has changed",
        "A new version of the privacy policy has been in force since {version}. What changed:"
        " {changed} Earlier versions stay readable below it.",
        page=("Read the privacy policy", "/privacy"),
    ),
    "account_disabled": Event(
        "security",
        "Your account was disabled",
        "An operator disabled your account. You can still export your data and delete the account.",
    ),
    "account_enabled": Event(
        "security",
        "Your account works again",
        "An operator enabled your account again.",
    ),
    "deletion_undone": Event(
        "security",
        "Your account stays",
        "The deletion of your account was undone. Devices may connect again with the secrets they"
        " have; sessions, API keys and the SQL login stay revoked. If this was not you, set a new"
        " password at once.",
    ),
    "subscription_started": Event(
        "billing",
        "Your plan {plan} begins",
        "Thank you. The limits of your new plan hold from now on, and your readings follow it.",
    ),
    "payment_failed": Event(
        "billing",
        "A payment failed",
        "Your last payment for the plan {plan} failed. It is tried again, and your plan stays"
        " meanwhile; look after your means of payment under Plan, Manage subscription.",
    ),
    "downgrade_ahead": Event(
        "billing",
        "Your plan {plan} ends on {ends_at}",
        "Your subscription ends then. From that day on the limits of the smaller plan hold, and"
        " its newest devices over them are paused. Readings older than it keeps are erased 14 days"
        " later: export them before under Settings, Export All My Data.",
        {"Ends": "ends_at"},
        page=_EXPORT,
    ),
    "downgrade_called_off": Event(
        "billing",
        "Your plan {plan} goes on",
        "Your subscription was to end, and now it does not.",
    ),
    "subscription_ended": Event(
        "billing",
        "Your plan {plan} has ended",
        "Your account is on the plan {now_on}, whose limits hold from now on. Nothing is deleted"
        " yet: readings older than it keeps are erased after the day below. Export them before"
        " under Settings, Export All My Data.",
        {"Older readings are kept until": "erased_at"},
        page=_EXPORT,
    ),
    "plan_smaller": Event(
        "billing",
        "Your plan is now {plan}",
        "The limits of the plan {plan} hold from now on. Nothing is deleted yet: readings older"
        " than {days} days are erased on {erased_at}. Export them before under Settings, Export All"
        " My Data. A larger plan before that day keeps them.",
        {"Older readings are kept until": "erased_at"},
        page=_EXPORT,
    ),
    "readings_erased_soon": Event(
        "billing",
        "Older readings are erased on {erased_at}",
        "Your plan {plan} keeps readings for {days} days, so the older ones are erased then. Export"
        " them before under Settings, Export All My Data. A larger plan before then keeps them.",
        {"Older readings are kept until": "erased_at"},
        page=_EXPORT,
    ),
    "devices_paused": Event(
        "billing",
        "{count} of your devices are paused",
        "Your plan has room for {limit} devices, so your newest ones beyond that are paused: their"
        " readings stay, and what they send is refused. A larger plan, or deleting another device,"
        " makes room for them.",
    ),
    "devices_resumed": Event(
        "billing",
        "{count} of your devices go on",
        "Your plan has room for them again.",
    ),
    "rules_paused": Event(
        "billing",
        "{count} of your alert rules are paused",
        "Your plan has room for {limit} alert rules, so your newest ones beyond that are paused and"
        " alert you of nothing. A larger plan, or deleting another rule, makes room for them.",
    ),
    "rules_resumed": Event(
        "billing",
        "{count} of your alert rules go on",
        "Your plan has room for them again.",
    ),
    "quota_near": Event(
        "usage",
        "{level} % of today's points are used",
        "Your plan allows {quota} points a UTC day, and {used} are used. Past 100 % the first"
        " reading of each metric in every 5 minutes is kept; at 150 % nothing more is.",
        {"A new day begins": "resets_at"},
    ),
    "quota_reached": Event(
        "usage",
        "Today's points are used up",
        "Your plan allows {quota} points a UTC day, and {used} are used. The first reading of each"
        " metric in every 5 minutes is still kept; at 150 % nothing more is.",
        {"A new day begins": "resets_at"},
    ),
    "export_ready": Event(
        "export",
        "Your export is ready",
        "The archive of all your data can be downloaded under Settings, Export All My Data. Sign in"
        " and prove once more that it is you. It is removed at the time below.",
        {"Rows": "rows", "Bytes": "bytes", "Removed": "expires_at"},
    ),
    "export_failed": Event(
        "export",
        "Your export could not be made",
        "Something went wrong while the archive of your data was made. Ask for it again; if it"
        " fails once more, answer to whoever runs this installation.",
    ),
}  # fmt: skip


def describe(event: str, data: Mapping[str, Any], time_zone: str) -> Described:
    """The event in words; one that a later version wrote is told by its name alone."""
    known = EVENTS.get(event)
    if known is None or known.needs - data.keys():
        return Described(event.replace("_", " ").capitalize(), "", [])
    shown = {name: _shown(name, value, time_zone) for name, value in data.items()}
    facts = [(label, shown[name]) for label, name in known.facts.items() if shown.get(name)]
    return Described(known.title.format_map(shown), known.text.format_map(shown), facts, known.page)


def _shown(name: str, value: Any, time_zone: str) -> str:
    if value is None:
        return ""
    if name.endswith(("time", "_at")):
        return local_time(datetime.fromisoformat(str(value)), time_zone)
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
