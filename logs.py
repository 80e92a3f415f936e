"""Configures structured logs on standard error: one JSON object per line, or text for people. Entry points call it."""

import contextlib
import logging
import sys
from typing import TextIO

import structlog

from observing.log_content import print_traceback, traceback_of, without_content


class _StandardError(logging.StreamHandler[TextIO]):
    def handleError(self, _record: logging.LogRecord) -> None:
        """Say that a line is lost, without what it says: that is all that the standard library would print."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"A log line could not be written: {type(sys.exception()).__name__}\n")


def configure_logs(log_format: str, log_level: str) -> None:
    """Send structlog's and the standard library's records to standard error.

    Args:
        log_format: `json` or `console`.
        log_level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_colors,
        without_content,
    ]
    rendered: list[structlog.types.Processor] = (
        [structlog.processors.ExceptionRenderer(traceback_of), structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(sys.stderr.isatty(), exception_formatter=print_traceback)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = _StandardError(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level.upper())
    # At DEBUG, `anthropic` logs whole requests, with what founders write.
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "e2b", "botocore", "aiobotocore", "alembic", "anthropic"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _without_colors(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    event.pop("color_message", None)  # uvicorn logs its message twice
    return event
