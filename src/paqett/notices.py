"""Notices: what an account's person is told, in the API and by mail.

The one path from event to channel: whoever notices something calls `notify` in the transaction it
belongs to, so that the notice exists exactly when the event does.
"""

import hmac
from base64 import urlsafe_b64encode
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from paqett import channels, lists, mails, notice_events
from paqett.db import Connection
from paqett.errors import Invalid
from paqett.notice_events import OPTIONAL_KINDS, Kind
from paqett.sqlfiles import query

_LONGEST_TEXT = 512
_SIGNATURE_BYTES = 18
_MOST_TITLES = 5


class Notice(msgspec.Struct, frozen=True):
    """One line of what somebody was told; `title` and `text` are `data` in words."""

    id: int
    kind: Kind
    event: str
    title: str
    text: str
    data: dict[str, Any]
    created_at: datetime
    read_at: datetime | None


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next_cursor` is None on the last page."""

    items: list[Notice]
    next_cursor: str | None


class Channels(msgspec.Struct, frozen=True):
    """Where a kind of notice goes besides the list itself."""

    mail: bool = True
    webhook: bool = True


class ChannelsIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change of a kind; what is left out stays."""

    mail: bool | msgspec.UnsetType = msgspec.UNSET
    webhook: bool | msgspec.UnsetType = msgspec.UNSET


class Preferences(msgspec.Struct, frozen=True):
    """Every kind; security is always mailed, and goes to no webhook."""

    device: Channels
    usage: Channels
    billing: Channels
    export: Channels
    security: Channels = Channels(mail=True, webhook=False)


class PreferencesIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; a kind that is left out stays."""

    device: ChannelsIn = ChannelsIn()
    usage: ChannelsIn = ChannelsIn()
    billing: ChannelsIn = ChannelsIn()
    export: ChannelsIn = ChannelsIn()
    security: ChannelsIn = ChannelsIn()


async def notify(conn: Connection, account_id: int, event: str, **data: object) -> None:
    """Tell the account's person that `event` happened; its words are in `notice_events`.

    `data` is what the words name, without secrets. `to_old` is no part of it: an address that is no
    longer the account's, which gets the mail and is forgotten when it is sent. With `only_mail` no
    webhook gets it. Raises `KeyError` for an event that is not known or lacks its data.
    """
    to_old, only_mail = data.pop("to_old", None), data.pop("only_mail", False)
    known = notice_events.EVENTS[event]
    kept = _plain(data)
    if lacking := known.needs - kept.keys():
        raise KeyError(f"{event} lacks {', '.join(sorted(lacking))}")
    values = {
        "account": account_id,
        "kind": known.kind,
        "event": event,
        "data": Jsonb(kept),
        "mail_to": to_old,
    }
    row = await (await conn.execute(query("create_notice"), values)).fetchone()
    if row is None:
        return
    wanted: Channels = getattr(await preferences(conn, account_id), known.kind)
    if wanted.mail and known.mailed:
        await mails.defer(conn, "notice", account_id, notice=row["id"])
    if wanted.webhook and not only_mail:
        await channels.send_notice(conn, account_id, row["id"], event)


def _plain(data: dict[str, object]) -> dict[str, Any]:
    """What JSON holds; what comes from outside is cut, and stripped of what is not printable."""
    plain: dict[str, Any] = msgspec.to_builtins(data, enc_hook=str)
    return {
        name: "".join(letter for letter in value[:_LONGEST_TEXT] if letter.isprintable())
        if isinstance(value, str)
        else value
        for name, value in plain.items()
    }


async def list_notices(
    conn: Connection, account_id: int, *, kind: Kind | None, devices: list[str] | None,
    limit: int, cursor: str | None,
) -> Page:  # fmt: skip
    """The account's notices, newest first; with `devices` those about these alone.

    Raises `Invalid` for a cursor that is not ours.
    """
    values = {
        "account": account_id, "kind": kind, "devices": devices, "before": lists.read_id(cursor),
        "limit": limit + 1,
    }  # fmt: skip
    rows = await (await conn.execute(query("list_notices"), values)).fetchall()
    return Page([_notice(row) for row in rows[:limit]], lists.next_id(rows, limit))


def _notice(row: dict[str, Any]) -> Notice:
    told = notice_events.describe(row["event"], row["data"], "UTC")
    return msgspec.convert({**row, "title": told.title, "text": told.text}, Notice)


async def preferences(conn: Connection, account_id: int) -> Preferences:
    """What the account's person chose; everything is on until they switch it off."""
    rows = await conn.execute(query("preferences"), {"account": account_id})
    chosen = {row["kind"]: Channels(row["mail"], row["webhook"]) for row in await rows.fetchall()}
    return Preferences(**{kind: chosen.get(kind, Channels()) for kind in OPTIONAL_KINDS})


async def set_preferences(conn: Connection, account_id: int, wanted: PreferencesIn) -> Preferences:
    """Change some kinds. Raises `Invalid` where security is to go another way."""
    if wanted.security.mail is False:
        raise Invalid("Security notices cannot be switched off.", field="security")
    if wanted.security.webhook is True:
        raise Invalid("Security notices are mailed; they go to no webhook.", field="security")
    await _set(conn, account_id, {kind: getattr(wanted, kind) for kind in OPTIONAL_KINDS})
    return await preferences(conn, account_id)


async def _set(conn: Connection, account_id: int, wanted: dict[Kind, ChannelsIn]) -> None:
    values = {
        "account": account_id,
        "kinds": list(wanted),
        "mails": [_given(chosen.mail) for chosen in wanted.values()],
        "webhooks": [_given(chosen.webhook) for chosen in wanted.values()],
    }
    await conn.execute(query("set_preferences"), values)


def _given(chosen: bool | msgspec.UnsetType) -> bool | None:
    return None if chosen is msgspec.UNSET else chosen


async def is_mailed(conn: Connection, account_id: int, kind: Kind) -> bool:
    """Whether notices of the kind go out by mail: security always, the others unless unwanted."""
    if kind not in OPTIONAL_KINDS:
        return True
    chosen: Channels = getattr(await preferences(conn, account_id), kind)
    return chosen.mail


async def admit(
    conn: Connection, account_id: int, notice_id: int, most: int, now: datetime
) -> int | None:
    """Count a notice's mail on its UTC day: how many more fit, or None where it is held back.

    A notice that was admitted before, and is tried again, is not counted again.
    """
    day = now.astimezone(UTC).date()
    values: dict[str, Any] = {"account": account_id, "notice": notice_id, "day": day, "most": most}
    row = await (await conn.execute(query("count_mail"), values)).fetchone()
    admitted = row is not None
    await conn.execute(query("note_admission"), {**values, "admitted": admitted})
    return None if row is None else max(0, most - row["mails"])


async def sum_up(conn: Connection, account_id: int, day: date) -> bool:
    """Tell what was held back on `day`, once; whether there was anything."""
    values = {"account": account_id, "day": day}
    if await (await conn.execute(query("claim_mail_day"), values)).fetchone() is None:
        return False
    rows = await (await conn.execute(query("held_notices"), values)).fetchall()
    if not rows:
        return False
    titles = Counter(notice_events.describe(row["event"], row["data"], "UTC").title for row in rows)
    told = [f"{title[:80]} ({count})" for title, count in titles.most_common(_MOST_TITLES)]
    if len(titles) > _MOST_TITLES:
        told.append(f"and {len(titles) - _MOST_TITLES} more")
    await notify(
        conn, account_id, "mails_held_back", held=len(rows), day=f"{day:%-d %B %Y}",
        what="; ".join(told),
    )  # fmt: skip
    return True


def unsubscribe_token(account_id: int, kind: Kind, secret: bytes) -> str:
    """What an unsubscribe link carries: `<account>.<kind>.<signature>`."""
    text = f"{account_id}.{kind}"
    signature = hmac.digest(secret, f"unsubscribe {text}".encode(), "sha256")[:_SIGNATURE_BYTES]
    return f"{text}.{urlsafe_b64encode(signature).decode()}"


async def check_unsubscribe(conn: Connection, token: str) -> tuple[int, Kind] | None:
    """The account and kind a link is for; None for one that we did not sign."""
    number, _, rest = token.partition(".")
    named = rest.partition(".")[0]
    kind = next((kind for kind in OPTIONAL_KINDS if kind == named), None)
    if kind is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        return None
    row = await (
        await conn.execute(query("unsubscribe_secret"), {"account": int(number)})
    ).fetchone()
    if row is None:
        return None
    good = unsubscribe_token(int(number), kind, row["unsubscribe_secret"])
    return (int(number), kind) if hmac.compare_digest(good.encode(), token.encode()) else None


async def unsubscribe(conn: Connection, token: str) -> Kind | None:
    """Mail no more notices of the link's kind; None for a link that we did not sign.

    Using it again changes nothing.
    """
    found = await check_unsubscribe(conn, token)
    if found is not None:
        await _set(conn, found[0], {found[1]: ChannelsIn(mail=False)})
    return found and found[1]
