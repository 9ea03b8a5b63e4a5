"""What pages say: of errors, with the way out of them, and of what was just done."""

import re

import msgspec

from paqett.errors import Problem, TooManyRequests


class Told(msgspec.Struct, frozen=True):
    """A problem for a person; `links` are ways out, label by path."""

    title: str
    text: str
    code: str
    links: dict[str, str] = {}


# what a code means on a page, where the API's own words name its endpoints
_TEXTS = {
    "csrf_failed": "The page was open for so long that its session changed. Open it again and send"
    " the form once more.",
    "reauthentication_required": "This needs your password, or a code we mail you.",
    "email_not_verified": "The password is right, but this address has not been confirmed yet. A"
    " mail with a new link is on its way.",
    "subscription_live": "You have a subscription already: change, pay or cancel it at Stripe.",
    "no_subscription": "Nothing was bought yet.",
    "internal_error": "This is our fault, not yours. Nothing was changed; try again, and tell the"
    " operator if it stays.",
    "method_not_allowed": "This address takes forms only. Go back to the page with the form.",
    "http_error": "The request could not be understood.",
}
_LINKS = {
    "plan_limit": {"Your plan": "/settings/plan"},
    "not_in_plan": {"Your plan": "/settings/plan"},
    "account_disabled": {"Settings": "/settings"},
    "account_closing": {"Settings": "/settings"},
    "export_expired": {"Your exports": "/settings/export"},
    "export_not_ready": {"Your exports": "/settings/export"},
    "csrf_failed": {"Start": "/"},
    "invalid_credentials": {"Forgotten your password?": "/reset-password"},
    "registration_closed": {"Sign in": "/sign-in"},
    "age_confirmation_required": {
        "I am 13 or older: make my account": "/api/v1/auth/github/start?age_confirmed=true"
    },
    "unauthorized": {"Sign in": "/sign-in"},
    "not_found": {"Start": "/"},
}
_TITLES = {
    "not_found": "There is nothing here",
    "unavailable": "Not available just now",
    "internal_error": "Something broke",
}
DONE = {
    "address_confirmed": "Your address is confirmed.",
    "password_reset": "Your password is changed. Sign in with the new one.",
    "signed_out": "You are signed out.",
    "saved": "Saved.",
    "deleted": "Deleted.",
    "password_changed": "Your password is changed, and every other session has ended.",
    "email_asked": "A mail is on its way to the new address, which counts once its link is opened.",
    "session_ended": "The session has ended.",
    "github_off": "GitHub no longer signs in to this account.",
    "key_deleted": "The key is deleted; the next request with it is refused.",
    "login_dropped": "The SQL login is gone, and its sessions with it.",
    "test_sent": "The test is on its way.",
    "rule_saved": "The rule is saved.",
    "rule_deleted": "The rule is deleted; its past alerts stay listed.",
    "webhook_deleted": "The webhook is deleted.",
    "device_deleted": "The device is gone and cut off; its readings are being erased.",
    "metric_deleted": "The metric is gone; its readings are being erased.",
    "view_saved": "The view is saved.",
    "view_deleted": "The view is deleted; its devices and readings stay.",
    "export_asked": "Your archive is being made. You get a notice when it is ready.",
    "deletion_undone": "The deletion is undone. Devices may connect again; make new API keys.",
}
"""What a page may say above itself after a form, by the word in `?done=`."""


def told(error: Problem) -> Told:
    """The problem as a page says it."""
    text = _TEXTS.get(error.code, error.detail)
    if isinstance(error, TooManyRequests):
        text = f"That was too often: {_wait(error)}"
    title = _TITLES.get(error.code, error.title)
    links = _LINKS.get(error.code, {})
    if url := error.extra.get("url"):  # of a Checkout that is open
        links = {"Go on there": str(url), **links}
    return Told(title, text, error.code, links)


def tell(code: str, title: str, detail: str) -> Told:
    """The same for what is no `Problem` of ours."""
    return Told(
        _TITLES.get(code, title), _TEXTS.get(code, detail), code, _LINKS.get(code, {"Start": "/"})
    )


def _wait(error: TooManyRequests) -> str:
    seconds = int(error.headers.get("Retry-After", "60"))
    minutes = -(-seconds // 60)
    span = f"{seconds} seconds" if seconds < 90 else f"{minutes} minutes"
    return f"{error.detail.split('.')[0].partition(': ')[2] or 'a limit is reached'}. Wait {span}."


_KINDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "yes or no",
    "datetime": "a date and a time",
}  # fmt: skip
_LENGTH = re.compile(r"Expected `(?:str|array)` of length (?P<how><=|>=) (?P<n>\d+)")
_BOUND = re.compile(r"Expected `(?:int|float)` (?P<how><=|>=|<|>) (?P<n>\S+)")
_BOUNDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}


def in_words(text: str) -> str:
    """A validation message as a person would say it."""
    if found := _LENGTH.match(text):
        if found["how"] == ">=" and found["n"] == "1":
            return "This must not be empty."
        return f"This has {_BOUNDS[found['how']]} {int(found['n']):,} characters."
    if found := _BOUND.match(text):
        return f"This is {_BOUNDS[found['how']]} {found['n']}."
    if "matching regex" in text:
        return "This has a character that is not allowed, or a part is missing."
    if "required field" in text:
        return "Something is missing."
    for kind, named in _KINDS.items():
        if text.startswith(f"Expected `{kind}"):
            return f"This must be {named}."
    return "This value cannot be used."
