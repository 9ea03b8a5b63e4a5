"""What every examination answers with."""

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One line of the report; `mend` says what to do where `state` is not ok."""

    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    mend: str = ""
