"""Mail as jobs: written in the caller's transaction, made and sent by the worker.

A job names a template, an account and numbers. Addresses, tokens and names are read when the mail
is sent, so that they stand in the mail and nowhere else.
"""

from typing import Literal

from paqett import jobs
from paqett.db import Connection

NOBODY = 0
Template = Literal[
    "verify_email",
    "already_registered",
    "reset_password",
    "change_email",
    "email_in_use",
    "reauthenticate_code",
    "account_closing",
    "notice",
]


async def defer(conn: Connection, template: Template, account_id: int, **values: object) -> None:
    """Write the job that mails `template` to the account's person.

    For `NOBODY` the job is written too and mails nothing, so that neither time nor rows tell
    whether an address has an account. `values` are ids; raises `TypeError` for anything else, which
    has no place in a job.
    """
    for name, value in values.items():
        if type(value) is not int:
            raise TypeError(f"a mail's job holds ids alone, and {name} is none")
    await jobs.defer(conn, "send_mail", template=template, account_id=account_id, ids=values)
