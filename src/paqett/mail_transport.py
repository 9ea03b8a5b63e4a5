"""How a mail leaves: by SMTP, or into a folder where no server is set. aiosmtplib's only home."""

import asyncio
import os
import ssl
from contextlib import suppress
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime, parseaddr
from pathlib import Path

import aiosmtplib
import msgspec

from paqett.children import LOOPBACK
from paqett.errors import ConfigurationError, NotRetried, PaqettError
from paqett.settings import Mail as MailSettings

# Python encodes a header it cannot fold, and an encoded List-Unsubscribe is none; RFC 5322 allows
# 998 characters.
_POLICY = SMTP.clone(max_line_length=900)


class MailDelayed(PaqettError):
    """The server cannot be reached, is not who it should be, or asks to try again later."""


class MailRefused(NotRetried):
    """The server will not take this mail, now or later."""


class Mail(msgspec.Struct, frozen=True):
    """A mail to one address; `message_id` is the part before the @, `unsubscribe` a link."""

    to: str
    template: str
    subject: str
    text: str
    html: str
    message_id: str
    unsubscribe: str | None = None


def check(settings: MailSettings) -> None:
    """Raises `ConfigurationError` for settings that would send in clear, or cannot send."""
    if "@" not in parseaddr(settings.from_address)[1]:
        raise ConfigurationError(f"mail.from_address is no address: {settings.from_address}")
    if settings.smtp_host and settings.smtp_tls == "none" and settings.smtp_host not in LOOPBACK:
        raise ConfigurationError(
            f'mail.smtp_host is {settings.smtp_host}: mail.smtp_tls = "none" is for a server on'
            " this machine alone; use starttls or tls"
        )
    if bool(settings.smtp_username) != bool(settings.smtp_password):
        raise ConfigurationError("mail.smtp_username and mail.smtp_password belong together")


def compose(mail: Mail, from_address: str, now: datetime) -> EmailMessage:
    """The message, both forms in one. Raises `NotRetried` for what has no place in a header."""
    message = EmailMessage(_policy(mail.to))
    name, sender = parseaddr(from_address)
    try:
        message["From"] = Address(name, addr_spec=sender)
        message["To"] = _recipient(mail.to)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(now)
        message["Message-ID"] = f"<{mail.message_id}@{sender.rpartition('@')[2]}>"
        # no answers from machines on holiday
        message["Auto-Submitted"] = "auto-generated"
        if mail.unsubscribe:
            message["List-Unsubscribe"] = f"<{mail.unsubscribe}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    except (ValueError, IndexError, MessageError) as error:
        raise MailRefused(f"{mail.template}: {type(error).__name__} in a header") from None
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


def _policy(to: str) -> "EmailPolicy[EmailMessage]":
    """7 bit, which every server takes; UTF-8 headers where the address itself needs them."""
    if _ascii_domain(to).isascii():
        return _POLICY.clone(cte_type="7bit")
    return _POLICY.clone(utf8=True)


def _recipient(to: str) -> Address:
    """One address and nothing more. Python's parser takes ASCII alone, so letters stand in."""
    plain = _ascii_domain(to)
    Address(addr_spec="".join(letter if letter.isascii() else "x" for letter in plain))
    local, _, domain = plain.rpartition("@")
    return Address(username=local, domain=domain)


def _ascii_domain(address: str) -> str:
    local, at, domain = address.rpartition("@")
    with suppress(UnicodeError):
        domain = domain.encode("idna").decode()
    return f"{local}{at}{domain}"


async def deliver(mail: Mail, settings: MailSettings, folder: Path, now: datetime) -> None:
    """Hand `mail` to the server, or write it into `folder` where none is set.

    Raises `MailDelayed` where trying again is right, `MailRefused` where it is not. Neither names
    the address: servers quote it in their answers, so these are left out.
    """
    message = compose(mail, settings.from_address, now)
    if not settings.smtp_host:
        await asyncio.to_thread(_write, message, mail.template, folder, now)
        return
    try:
        async with asyncio.timeout(3 * settings.timeout_s):
            await _send(message, settings)
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _judged(error.recipients[0].code, mail.template) from None
    except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
        raise _judged(error.code, mail.template) from None
    except (aiosmtplib.SMTPNotSupported, UnicodeError):
        raise MailRefused(f"{mail.template}: the server takes only ASCII addresses") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        code = getattr(error, "code", None)
        what = f"{type(error).__name__} {code}" if code else type(error).__name__
        raise MailDelayed(f"{mail.template}: {what}") from None


def _judged(code: int, template: str) -> PaqettError:
    """4xx: later; 5xx: never."""
    wrong = MailRefused if code >= 500 else MailDelayed
    return wrong(f"{template}: the server answered {code}")


async def try_out(settings: MailSettings) -> None:
    """Connect, start TLS and sign in as for a mail, and send none. Raises `MailDelayed`."""
    try:
        async with asyncio.timeout(settings.timeout_s), _client(settings) as client:
            await client.noop()
    except (aiosmtplib.SMTPException, OSError) as error:
        raise MailDelayed(f"{type(error).__name__}: {error}") from None


def _client(settings: MailSettings) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username or None,
        password=settings.smtp_password or None,
        timeout=settings.timeout_s,
        use_tls=settings.smtp_tls == "tls",
        start_tls=settings.smtp_tls == "starttls",
        # the machine's own authorities, or those of the environment's SSL_CERT_FILE
        tls_context=None if settings.smtp_tls == "none" else ssl.create_default_context(),
    )


async def _send(message: EmailMessage, settings: MailSettings) -> None:
    utf8 = message.policy.utf8  # type: ignore[attr-defined]
    async with _client(settings) as client:
        await client.sendmail(
            message["From"].addresses[0].addr_spec,
            [message["To"].addresses[0].addr_spec],
            message.as_bytes(),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"] if utf8 else [],
        )


def _write(message: EmailMessage, template: str, folder: Path, now: datetime) -> None:
    """`<time>-<template>-<n>.eml`, whole or not at all, readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    stem = f"{now:%Y%m%dT%H%M%S.%fZ}-{template}"
    draft = folder / f".{stem}-{os.getpid()}-{id(message)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(message.as_bytes())
            file.flush()
            os.fsync(file.fileno())
        number = 1
        while True:
            try:
                # unlike a rename it overwrites nothing
                (folder / f"{stem}-{number}.eml").hardlink_to(draft)
            except FileExistsError:
                number += 1
            else:
                return
    finally:
        draft.unlink()


def forget_of(folder: Path, addresses: list[str]) -> int:
    """Remove the mails to any of `addresses`; how many there were."""
    wanted = {_ascii_domain(address).lower() for address in addresses}
    removed = 0
    for path in folder.glob("*.eml"):
        try:
            with path.open("rb") as file:
                to = BytesHeaderParser(policy=SMTP).parse(file)["To"]
        except FileNotFoundError:
            continue
        if any(one.addr_spec.lower() in wanted for one in to.addresses):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def forget_old(folder: Path, before: datetime) -> int:
    """Remove mails written before, and drafts of a killed worker; how many."""
    removed = 0
    for path in folder.glob("*"):
        if path.stat().st_mtime < before.timestamp():
            path.unlink(missing_ok=True)
            removed += 1
    return removed
