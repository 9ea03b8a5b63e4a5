"""`paqett up` shows each mail that is written to the folder: whom to, what about, its link."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

_EVERY_S = 0.5
_LINK = re.compile(r"https?://\S+[?&]token=\S+")


def describe(path: Path) -> str:
    """One line: address, subject, and the link in it, or where the mail is."""
    message = message_from_bytes(path.read_bytes(), _class=EmailMessage, policy=default)
    plain = message.get_body(("plain",))
    found = _LINK.search(plain.get_content()) if plain is not None else None
    return f"mail to {message['To']}: {message['Subject']}: {found[0] if found else path}"


async def watch(folder: Path, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    """Tell of every mail that appears in `folder` until `stop`; those of before are not new."""
    told = _mails(folder)
    while not stop.is_set():
        await asyncio.sleep(_EVERY_S)
        present = _mails(folder)
        for path in sorted(present - told):
            with suppress(OSError):  # removed meanwhile: nothing to tell of
                say(describe(path))
        told = present


def _mails(folder: Path) -> set[Path]:
    return set(folder.glob("*.eml"))
