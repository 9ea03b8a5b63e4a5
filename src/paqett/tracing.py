"""Spans through OpenTelemetry's API for whoever traces; nothing unless `ops.tracing` is set.

Where spans go is the operator's: `opentelemetry-instrument paqett api` reads it from the
environment, and traces the database's statements below ours.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from paqett import __version__
from paqett.errors import ConfigurationError

Value = str | int | float | bool
_tracer: Any = None


class Span(Protocol):
    """What a span takes while it lasts."""

    def set_attribute(self, key: str, value: Value) -> None:
        """Say more about it."""

    def update_name(self, name: str) -> None:
        """Call it otherwise, once more is known."""


class _Nothing:
    def set_attribute(self, key: str, value: Value) -> None:
        """Nobody traces."""

    def update_name(self, name: str) -> None:
        """Nobody traces."""


NOTHING: Span = _Nothing()


def configure(*, on: bool) -> None:
    """Begin to trace, or leave it. Raises `ConfigurationError` where the API is not installed."""
    global _tracer  # noqa: PLW0603 - one for the process, like the loggers
    _tracer = None
    if not on:
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra that few install
    except ImportError:
        raise ConfigurationError(
            "ops.tracing is set, and OpenTelemetry is not installed: pip install paqett[tracing]"
        ) from None
    _tracer = trace.get_tracer("paqett", __version__)


@contextmanager
def span(
    name: str, headers: Iterable[tuple[bytes, bytes]] = (), *, server: bool = False, **about: Value
) -> Iterator[Span]:
    """A span `name` with attributes `paqett.…`, below the one that `headers` name or the current.

    An exception is noted by its class alone: what it says may be personal.
    """
    if _tracer is None:
        yield NOTHING
        return
    from opentelemetry import propagate, trace  # noqa: PLC0415 - configure has found it

    carrier = {key.decode("latin1"): value.decode("latin1") for key, value in headers}
    with _tracer.start_as_current_span(
        name,
        context=propagate.extract(carrier) if carrier else None,
        kind=trace.SpanKind.SERVER if server else trace.SpanKind.INTERNAL,
        attributes={f"paqett.{key}": value for key, value in about.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
