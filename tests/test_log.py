"""What a stranger sent stays inside its own line of the log."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from paqett import log

NASTY = "a\r\n2026-11-25 [error] forged\x1b[2J\x00\x85\u2028end"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("way", ["value", "event", "library", "bound", "exception"])
def test_control_characters_never_reach_a_log_raw(form, way, capsys) -> None:
    log.configure("info", form, "test")
    logger = structlog.get_logger(module="test")
    if way == "value":
        logger.info("event", path=NASTY, nested=[NASTY])
    elif way == "event":
        logger.info(NASTY)
    elif way == "library":
        logging.getLogger("somebody").warning("said %s", NASTY)
    elif way == "bound":
        with structlog.contextvars.bound_contextvars(request_id=NASTY):
            logger.info("event")
    else:
        try:
            raise ValueError(NASTY)
        except ValueError as error:
            logger.error("event", exc_info=error)
    written = capsys.readouterr().err
    assert "forged" in written, "the text itself is kept"
    for character in "\r\x1b\x00\x85\u2028":
        assert character not in written
    for line in written.split("\n")[1:]:
        assert line == "" or line.startswith("    "), "only an indented traceback goes on"


def test_a_logger_outlives_the_stream_it_was_made_under(monkeypatch, capsys) -> None:
    logger = log.get("test")
    first = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", first)
        log.configure("info", "console", "test")
        logger.info("first")
    first.close()
    logger.info("second")
    logging.getLogger("somebody").warning("third")
    written = capsys.readouterr().err
    assert "second" in written
    assert "third" in written
