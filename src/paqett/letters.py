"""What stands in each mail: whom it may go to, its token, its words.

A job names a template and an account; here they become a mail, at the time it is sent.
"""

import secrets
from datetime import datetime
from typing import Any

import msgspec

from paqett import consequences, notice_events, notices, tokens
from paqett.db import Connection
from paqett.mail_rendering import local_time, render
from paqett.mail_transport import Mail
from paqett.mails import Template
from paqett.notice_events import OPTIONAL_KINDS, Kind
from paqett.settings import Settings
from paqett.sqlfiles import query

# What a disabled account, or one that is closing, still hears: what keeps it safe, and what its
# export and deletion need.
_TO_DISABLED: frozenset[Template] = frozenset(
    {"already_registered", "reset_password", "email_in_use", "reauthenticate_code"}
)
# What may reach somebody who never heard of us: no word in it was chosen by whoever asked for it,
# not even a name.
_TO_STRANGERS: frozenset[Template] = frozenset({"verify_email", "change_email"})
_LAST = (
    "This is the last of the {} notices that are mailed to you today. What comes until midnight UTC"
    " is held back and summed up in one mail after that; the list of your notices has it at once."
)
_KINDS_TO_DISABLED: frozenset[Kind] = frozenset({"security", "export"})


class Terms(msgspec.Struct, frozen=True):
    """What mails say of this installation: its address, and how long (s) their tokens last.

    `mails_a_day` is how many notices are mailed to an account on one UTC day.
    """

    public_url: str
    verify_email_s: float
    reset_password_s: float
    reauthenticate_s: float
    mails_a_day: int


class Person(msgspec.Struct, frozen=True):
    """Whom a mail goes to."""

    id: int
    email: str
    pending_email: str | None
    first_name: str | None
    time_zone: str
    verified: bool
    disabled: bool
    closing: bool
    unsubscribe_secret: bytes


def terms(settings: Settings) -> Terms:
    """As the settings have them."""
    auth = settings.auth
    return Terms(
        settings.public_url, auth.verify_email_s, auth.reset_password_s, auth.reauthenticate_s,
        settings.mail.most_a_day,
    )  # fmt: skip


async def write(
    conn: Connection, terms: Terms, template: Template, account_id: int, ids: dict[str, int],
    now: datetime,
) -> Mail | None:  # fmt: skip
    """The mail a job asks for, or None where nobody is to get it (any more).

    A token is issued in the transaction of `conn`: commit it before the mail is sent, so that no
    mail carries a token that is not good.
    """
    row = await (await conn.execute(query("mail_person"), {"account": account_id})).fetchone()
    if row is None:
        return None
    person = msgspec.convert(row, Person)
    if template == "notice":
        return await _notice(conn, terms, person, ids["notice"], now)
    to = person.pending_email if template == "change_email" else person.email
    if to is None or not _may_get(template, person):
        return None
    values = await _proof(conn, terms, template, person.id, to, now)
    # a repeated mail carries another token: whoever drops doubles by this id must keep both
    return _mail(terms, person, template, to, f"{template}.{secrets.token_hex(8)}", values)


def _may_get(template: Template, person: Person) -> bool:
    open_ = not person.disabled and not person.closing
    if template == "verify_email":
        return not person.verified and open_
    if template == "account_closing":
        return person.verified and person.closing
    return person.verified and (open_ or template in _TO_DISABLED)


async def _proof(
    conn: Connection, terms: Terms, template: Template, account_id: int, to: str, now: datetime
) -> dict[str, Any]:
    """The link or code of the mails that prove something."""
    page, lasts_s = "/verify-email", terms.verify_email_s
    if template == "reauthenticate_code":
        lasts_s = terms.reauthenticate_s
        digits = await tokens.issue_code(conn, account_id, to, now, lasts_s)
        return {"digits": digits, "lasts_s": lasts_s}
    if template == "reset_password":
        page, lasts_s = "/reset-password", terms.reset_password_s
    if template == "account_closing":
        return await _undoing(conn, terms, account_id, to, now)
    if template not in ("verify_email", "change_email", "reset_password"):
        return {}
    token = await tokens.issue(conn, account_id, template, to, now, lasts_s)
    return {"link": f"{terms.public_url}{page}?token={token}", "lasts_s": lasts_s}


async def _undoing(
    conn: Connection, terms: Terms, account_id: int, to: str, now: datetime
) -> dict[str, Any]:
    """What the deletion means, when it comes, and the link that undoes it until then."""
    values = {"account": account_id}
    row = await (await conn.execute(query("erasure_of_account"), values)).fetchone()
    due = now if row is None else row["due_at"]
    lasts_s = (due - now).total_seconds()
    token = await tokens.issue(conn, account_id, "undo_deletion", to, now, lasts_s)
    return {
        "link": f"{terms.public_url}/deletion/undo?token={token}",
        "erased_at": local_time(due, "UTC"),
        "at_once": consequences.AT_ONCE,
        "then": consequences.LATER,
    }


async def _notice(
    conn: Connection, terms: Terms, person: Person, notice: int, now: datetime
) -> Mail | None:
    values = {"account": person.id, "notice": notice}
    row = await (await conn.execute(query("notice_to_mail"), values)).fetchone()
    if row is None or not person.verified:
        return None
    if (person.disabled or person.closing) and row["kind"] not in _KINDS_TO_DISABLED:
        return None
    if not await notices.is_mailed(conn, person.id, row["kind"]):
        return None
    link, left = None, None
    if row["kind"] in OPTIONAL_KINDS:
        left = await notices.admit(conn, person.id, notice, terms.mails_a_day, now)
        if left is None:
            return None
        token = notices.unsubscribe_token(person.id, row["kind"], person.unsubscribe_secret)
        link = f"{terms.public_url}/unsubscribe?token={token}"
    told = notice_events.describe(row["event"], row["data"], person.time_zone)
    text = told.text if left != 0 else f"{told.text} {_LAST.format(terms.mails_a_day)}"
    page = (told.page[0], f"{terms.public_url}{told.page[1]}") if told.page else None
    words = {"title": told.title, "text": text, "facts": told.facts, "page": page}
    to = row["mail_to"] or person.email
    return _mail(terms, person, "notice", to, f"notice.{notice}", words, link)


def _mail(
    terms: Terms, person: Person, template: Template, to: str, message_id: str,
    values: dict[str, Any], unsubscribe: str | None = None,
) -> Mail:  # fmt: skip
    rendered = render(
        template,
        first_name=None if template in _TO_STRANGERS else person.first_name,
        public_url=terms.public_url,
        unsubscribe=unsubscribe,
        **values,
    )
    return Mail(
        to, template, rendered.subject, rendered.text, rendered.html, message_id, unsubscribe
    )


async def note_sent(
    conn: Connection, template: Template, account_id: int, ids: dict[str, int], now: datetime
) -> None:
    """The mail has gone; a notice is not mailed again, and forgets an address it was mailed to."""
    if template == "notice":
        values = {"account": account_id, "notice": ids["notice"], "now": now}
        await conn.execute(query("note_notice_mailed"), values)
