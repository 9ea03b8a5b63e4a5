"""MAC addresses in the forms PostgreSQL's `macaddr` reads."""

import re

_FORMS = re.compile(
    r"[0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){5}|[0-9a-f]{6}[:-]?[0-9a-f]{6}"
    r"|[0-9a-f]{4}([.-])[0-9a-f]{4}\3[0-9a-f]{4}",
    re.IGNORECASE | re.ASCII,
)
WRONG = "mac_address must be like 08:00:2b:01:02:03."


def is_mac(text: str) -> bool:
    """Whether it is six bytes in hexadecimal, with or without the usual separators."""
    return _FORMS.fullmatch(text) is not None
