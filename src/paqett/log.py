"""Structured logs on standard error: one event a line, keys instead of sentences."""

import logging
import sys
import traceback
from typing import Any, TextIO, cast

import structlog


class _Stderr:
    """Standard error as it is when something is written: loggers outlive whoever replaced it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_STDERR = cast("TextIO", _Stderr())
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str, form: str, process: str) -> None:
    """Send structlog and the standard library's loggers to standard error.

    `form` is `console` for people or `json` for machines; `process` is bound to every line.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _printable,
    ]
    renderer = _renderer(form)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer]
        if form == "json"
        else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(_STDERR),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(_STDERR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # Libraries speak only when something is wrong: gmqtt logs payloads at debug.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # A lost connection is told by us in one line; gmqtt's is a traceback.
    logging.getLogger("gmqtt.mqtt.protocol").setLevel(logging.ERROR)
    # uvicorn warns of every request that is not HTTP: strangers must not fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _renderer(form: str) -> Any:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        # the default prints local variables, and those hold secrets
        exception_formatter=_traceback,
    )


def _printable(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Control characters as escapes: what a stranger sent ends no line and moves no cursor."""
    return {
        key: plain(value) if isinstance(value, str) and not value.isprintable() else value
        for key, value in event.items()
    }


def plain(text: str) -> str:
    """`text` with what is not printable written as Python writes it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _traceback(out: TextIO, exc_info: Any) -> None:
    """Indented, so that no line of a message passes for a line of the log."""
    lines = "".join(traceback.format_exception(*exc_info)).splitlines()
    out.writelines(f"\n    {plain(line)}" for line in lines)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `module=name`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger
