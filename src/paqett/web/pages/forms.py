"""A page's form: what was typed, and what was wrong with it."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request

from paqett.errors import Invalid, Problem
from paqett.web import fields
from paqett.web.pages import words

T = TypeVar("T")
_AT = re.compile(r"^(?P<words>.*?)(?: - at `\$\.?(?P<field>[a-z_]*)[^`]*`)?$", re.DOTALL)


class Form(msgspec.Struct):
    """`values` as they were typed; `errors` by field; `problem` is what is about no field.

    `status` and `headers` are of the answer that says so.
    """

    values: Mapping[str, list[str]] = {}
    errors: dict[str, str] = {}
    problem: words.Told | None = None
    status: int = 200
    headers: dict[str, str] = {}

    @property
    def posted(self) -> bool:
        """Whether this is what somebody sent, not a page just opened."""
        return bool(self.values)

    def text(self, name: str, default: str = "") -> str:
        """The field as typed."""
        return self.values.get(name, [default])[0]

    def given(self, name: str) -> str | None:
        """The field without spaces around it; None where nothing was typed."""
        return self.text(name).strip() or None

    def all(self, name: str) -> list[str]:
        """Every value of a field that may have several."""
        return list(self.values.get(name, []))

    def has(self, name: str) -> bool:
        """Whether a box is ticked, or a button was pressed."""
        return name in self.values

    def ticked(self, name: str, value: str, *, default: bool = False) -> bool:
        """Whether this one of several boxes is ticked; `default` on a page just opened."""
        return value in self.values.get(name, []) if self.posted else default

    def refuse(self, error: Problem, **renamed: str) -> "Form":
        """The same with what was wrong: at its field where the form has it, else above.

        `renamed` are fields of the form by those of the API.
        """
        named = str(error.extra.get("field", ""))
        field = renamed.get(named, named)
        # a browser that is answered 401 would be owed a way to authenticate
        status = 422 if error.status == 401 else error.status
        wait = {name: error.headers[name] for name in ("Retry-After",) if name in error.headers}
        refused = msgspec.structs.replace(self, status=status, headers=wait)
        if isinstance(error, Invalid) and field in self.values:
            return msgspec.structs.replace(refused, errors={field: error.detail})
        return msgspec.structs.replace(refused, problem=words.told(error))


async def sent(request: Request[Any, Any, Any]) -> Form:
    """The form that came with the request."""
    return Form(await fields.fields(request))


def convert(given: Mapping[Any, Any], kind: type[T]) -> T:
    """`given` as the API's own struct. Raises `Invalid` with words for people, and the field."""
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        text, field = (found["words"], found["field"]) if found else (str(error), None)
        raise Invalid(words.in_words(text), field=field) from None


def number(text: str | None, field: str) -> float | None:
    """A number as people type it. Raises `Invalid`."""
    if text is None:
        return None
    try:
        found = float(text.replace(",", "."))
    except ValueError:
        found = float("nan")
    if found != found or abs(found) == float("inf"):
        raise Invalid("This is a number, such as 21.5.", field=field)
    return found
