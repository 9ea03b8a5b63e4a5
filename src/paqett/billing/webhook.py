"""What Stripe sends: taken once, answered at once, and worked by a job."""

from datetime import datetime

import msgspec

from paqett.billing import sync
from paqett.db import Connection
from paqett.errors import Invalid
from paqett.sqlfiles import query


class Object(msgspec.Struct, frozen=True):
    """What the event is about: a customer, or something of a customer's."""

    object: str = ""
    id: str | None = None
    customer: str | None = None


class Data(msgspec.Struct, frozen=True):
    """As Stripe wraps it."""

    object: Object


class Event(msgspec.Struct, frozen=True):
    """Only what tells the account: everything else is asked of Stripe anew."""

    id: str
    type: str
    data: Data

    @property
    def customer(self) -> str | None:
        """Whose event it is."""
        about = self.data.object
        return about.id if about.object == "customer" else about.customer


def read(body: bytes) -> Event:
    """A body whose signature is good. Raises `Invalid` for one that is no event."""
    try:
        event = msgspec.json.decode(body, type=Event)
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("This is no event of Stripe's API v1.") from None
    if not 0 < len(event.id) < 256 or "\0" in event.id + event.type:
        raise Invalid("This is no event of Stripe's API v1.")
    return event


async def take(conn: Connection, event: Event, now: datetime) -> bool:
    """Note the event and write the job it asks for; false for one that came before.

    An event of a customer that is none of ours is noted and asks for nothing.
    """
    values = {"id": event.id, "type": event.type, "now": now}
    if await (await conn.execute(query("unscoped_note_event"), values)).fetchone() is None:
        return False
    if event.customer is not None:
        found = await conn.execute(
            query("unscoped_account_of_customer"), {"customer": event.customer}
        )
        for row in await found.fetchall():
            await sync.defer(conn, row["account_id"])
    return True
