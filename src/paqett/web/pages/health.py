"""How a device is, in words for people: what counts is whether its data is fresh."""

from typing import Literal

import msgspec

from paqett.device_structs import Device, Event


class Health(msgspec.Struct, frozen=True):
    """`kind` is the colour of its badge; `text` says more."""

    word: str
    kind: Literal["good", "warn", "bad", ""]
    text: str


_FRESH = {
    "online": Health("online", "good", "It is connected and its data is fresh."),
    "offline": Health(
        "well, asleep", "good",
        "It is not connected just now and its data is fresh: it sleeps between readings.",
    ),
    "never": Health("well", "good", "Its data is fresh; it sends over HTTP, without a connection."),
    "unknown": Health(
        "well", "good", "Its data is fresh. The broker has not been heard of for a minute."
    ),
}  # fmt: skip
_STALE = {
    "online": Health(
        "silent", "warn", "It is connected and has sent nothing for three times its interval."
    ),
    "offline": Health(
        "gone", "bad", "It is not connected and has sent nothing for three times its interval."
    ),
    "never": Health("silent", "bad", "It has sent nothing for three times its interval."),
    "unknown": Health(
        "silent", "warn",
        "It has sent nothing for three times its interval, and the broker has not been heard of.",
    ),
}  # fmt: skip
_NEVER = {
    "online": Health(
        "no data yet", "warn", "It is connected, and nothing has come under its own topic yet."
    ),
    "offline": Health("no data yet", "warn", "It was connected once and has sent nothing."),
    "never": Health("new", "", "It has not been heard of yet."),
    "unknown": Health("no data yet", "warn", "It has sent nothing."),
}
_PAUSED = Health(
    "paused", "warn", "Your plan has room for your older devices only; what it sends is refused."
)


_OFF = Health(
    "off", "warn", "You switched it off: what it sends is refused until you switch it on."
)


def health(device: Device) -> Health:
    """The device in a word and a sentence."""
    if device.paused_at is not None:
        return _PAUSED if device.enabled else _OFF
    by_data = {"fresh": _FRESH, "stale": _STALE, "never": _NEVER}[device.data.status]
    return by_data[device.connection.status]


_EVENTS: dict[str, Health] = {
    "connected": Health("connected", "good", ""),
    "disconnected": Health("disconnected", "", ""),
    "taken_over": Health(
        "taken over", "warn",
        "A second connection signed in with the same device, and the first was closed. Give each"
        " machine a device of its own.",
    ),
    "refused": Health(
        "sign-in refused", "bad",
        "The user name is the device's id, the password is its secret. A secret that was replaced"
        " no longer works.",
    ),
}  # fmt: skip


def event(found: Event) -> Health:
    """A line of the connection log in words."""
    return _EVENTS.get(found.kind, Health(found.kind.replace("_", " "), "", ""))


def advice(device: Device, events: list[Event]) -> Health:
    """What somebody who waits for a first reading should know now."""
    newest = events[0].kind if events else None
    if device.paused_at is not None:
        return _PAUSED if device.enabled else _OFF
    if device.data.status != "never":
        return Health("data arrives", "good", "Readings are being stored.")
    if newest == "refused":
        return _EVENTS["refused"]
    if len(events) > 1 and "taken_over" in (events[0].kind, events[1].kind):
        return _EVENTS["taken_over"]
    if device.connection.status == "online":
        return Health(
            "connected, nothing yet", "warn",
            f"It is signed in, and nothing has come under paqett/v1/{device.id}/telemetry. Look at"
            " the topic: whatever is published elsewhere is acknowledged and dropped.",
        )  # fmt: skip
    if device.connection.status == "offline":
        return Health(
            "was connected, nothing came", "warn",
            "It signed in and went again without a reading under"
            f" paqett/v1/{device.id}/telemetry. Look at the topic.",
        )  # fmt: skip
    return Health(
        "waiting",
        "",
        "Nothing has been heard of the device yet. Send a reading, and it appears here.",
    )


REFUSALS = {
    "bad_json": "the payload is not JSON in UTF-8",
    "bad_topic": "the topic is none that is stored",
    "bad_ts": "the timestamp cannot be read",
    "payload_too_large": "the message is larger than your plan allows",
    "too_many_items": "the array has more than 500 items",
    "bad_metric_name": "the metric's name is empty, too long or not printable",
    "metric_limit": "the device has as many metrics as your plan allows",
    "type_conflict": "the metric is of another kind than this value",
    "bad_value": "the value is no number, boolean or short text",
    "ts_too_old": "the timestamp is older than your plan keeps readings",
    "ts_in_future": "the timestamp is more than 10 minutes ahead",
    "clock_not_set": "the device's clock is before 2001: let it leave out ts",
    "rate_limited": "the device sends faster than your plan allows",
    "quota_thinned": "the day's points are used up; one reading each 5 minutes is kept",
    "quota_exceeded": "the day's points are used up",
    "device_disabled": "the device is paused",
    "account_closing": "the account is being deleted",
}
"""Why a point was refused, by its code."""
