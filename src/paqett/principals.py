"""Whoever asks: a key, a session or a device, all of one account."""

from datetime import datetime

import msgspec

from paqett.accounts import Account

SCOPES = frozenset(
    {
        "telemetry:read",
        "telemetry:write",
        "devices:read",
        "devices:write",
        "alerts",
        "export",
        "account:read",
    }
)


class Session(msgspec.Struct, frozen=True):
    """The session a request came with; `authenticated_at` is the last proof of the person."""

    id: int
    method: str
    authenticated_at: datetime


class Principal(msgspec.Struct, frozen=True):
    """The account, and what is allowed; `key_id` and `session` are None for a device."""

    account: Account
    key_id: int | None
    scopes: frozenset[str]
    device_ids: frozenset[str] | None
    session: Session | None = None

    def may_see(self, device_id: str) -> bool:
        """Whether the key's allow-list, where it has one, names the device."""
        return self.device_ids is None or device_id in self.device_ids
