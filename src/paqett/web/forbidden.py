"""403: who asks is known, and may not do this, or not now."""

from paqett.errors import Problem
from paqett.web.session_cookie import CSRF_HEADER


class CsrfFailed(Problem):
    """A write by cookie without the session's token: perhaps another site's doing."""

    status = 403
    code = "csrf_failed"
    title = "CSRF token missing or wrong"

    def __init__(self) -> None:
        super().__init__(
            f"Send the session's token in {CSRF_HEADER}; GET /api/v1/account tells it."
        )


class SessionRequired(Problem):
    """For a signed-in person; a key, which may lie in some device, is not enough."""

    status = 403
    code = "session_required"
    title = "Session required"

    def __init__(self) -> None:
        super().__init__("This needs a signed-in session, not an API key.")


class ReauthenticationRequired(Problem):
    """The person's last proof is too long ago for a step like this."""

    status = 403
    code = "reauthentication_required"
    title = "Re-authentication required"

    def __init__(self) -> None:
        super().__init__("Prove who you are first: POST /api/v1/auth/reauthenticate.")


class AccountDisabled(Problem):
    """An operator has disabled the account."""

    status = 403
    code = "account_disabled"
    title = "Account disabled"

    def __init__(self) -> None:
        super().__init__("The account is disabled; exporting and deleting it remain possible.")


class DeviceDisabled(AccountDisabled):
    """The same for a device of it."""

    code = "device_disabled"


class AccountClosing(Problem):
    """The account is being deleted: for its person, its devices and whoever else asks."""

    status = 403
    code = "account_closing"
    title = "Account closing"

    def __init__(self) -> None:
        super().__init__(
            "The account is being deleted; exporting it and undoing the deletion remain possible."
        )


class DevicePaused(DeviceDisabled):
    """Its owner switched it off, or the account's plan has room for its older devices only."""

    def __init__(self, *, enabled: bool) -> None:
        Problem.__init__(
            self,
            "The device is paused: the account's plan has room for its older devices only."
            " A larger plan, or deleting another device, makes room for it."
            if enabled
            else "The device was switched off by its owner, who can switch it on again.",
        )
