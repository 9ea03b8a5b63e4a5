"""What handlers' types do not show, for the OpenAPI document: refusals, and other forms of rows."""

from typing import Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIHeader, OpenAPIMediaType, Operation, Schema

_REFUSALS = {
    401: "No credentials, or unknown ones: `unauthorized`.",
    403: "The key lacks a scope: `missing_scope`.",
    404: "There is no such device, or it is another account's: `not_found`.",
    406: "Accept names nothing we have: `not_acceptable`.",
    422: "A parameter or member is wrong, and `field` names it: `invalid`.",
    503: "The database is away: `unavailable`; or the query took too long, and a shorter range or"
    " a wider bucket helps: `query_timeout`. Both with `Retry-After`.",
}


class ProblemDocument(msgspec.Struct, frozen=True):
    """RFC 9457; `code` is stable, `detail` is for people, `field` is what is wrong."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems of a handler."""
    return {
        status: ResponseSpec(
            ProblemDocument,
            generate_examples=False,
            description=_REFUSALS[status],
            media_type="application/problem+json",
        )
        for status in statuses
    }


class Operation422(Operation):
    """Litestar documents 400 where it validates; we answer 422."""

    def __post_init__(self) -> None:
        (self.responses or {}).pop("400", None)


class TableOperation(Operation422):
    """Rows, also as CSV and NDJSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        found: Any = (self.responses or {})["200"]
        text: Any = Schema(type="string")  # type: ignore[arg-type]
        for media_type in ("text/csv", "application/x-ndjson"):
            found.content[media_type] = OpenAPIMediaType(schema=text)


class QueryOperation(TableOperation):
    """Rows of a query, and what their headers say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        found: Any = (self.responses or {})["200"]
        text: Any = Schema(type="string")  # type: ignore[arg-type]
        found.headers = {
            **(found.headers or {}),
            "Next-Cursor": OpenAPIHeader(
                schema=text, description="CSV and NDJSON with `limit`: the next page's cursor."
            ),
            "Paqett-Bucket": OpenAPIHeader(schema=text, description="The bucket in use."),
        }
