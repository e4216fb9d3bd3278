"""Logs: one format for our lines and those of libraries, on stderr, without secrets."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Protocol, TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET = ("httpx", "httpcore", "alembic", "apscheduler")
"""Libraries whose INFO lines hold URLs or say nothing to an operator."""

LOG = "log"
READ_WITHIN = 60.0
"""Seconds. A pipe that is full makes whoever writes wait, and soon everybody."""

SHORTEST = 4
"""Characters. Redacting anything shorter would make logs unreadable and hide nothing."""


class SignsOfLife(Protocol):
    """Whoever is told when something begins and ends that should not take long."""

    def beat(self, name: str, limit: float) -> None: ...

    def end(self, name: str) -> None: ...


def configure(secrets: Collection[str], signs: SignsOfLife | None = None) -> None:
    """Console lines on a terminal, one JSON object a line otherwise.

    Args:
        secrets: never shown, in none of their ``forms``.
        signs: told of each line that is written, which ends when somebody reads it.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_the_error,
    ]
    handler = Lines(sys.stderr, signs)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(),
                Redacted(secrets),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class Lines(logging.StreamHandler[TextIO]):
    """One line at a time: ``logging`` lets nobody in while one is written."""

    def __init__(self, stream: TextIO, signs: SignsOfLife | None) -> None:
        super().__init__(stream)
        self._signs = signs

    def emit(self, record: logging.LogRecord) -> None:
        if self._signs is None:
            super().emit(record)
            return
        self._signs.beat(LOG, READ_WITHIN)
        try:
            super().emit(record)
        finally:
            self._signs.end(LOG)


def hide(secrets: Collection[str]) -> None:
    """Show these neither, from the next line on."""
    for handler in logging.getLogger().handlers:
        for processor in getattr(handler.formatter, "processors", ()):
            if isinstance(processor, Redacted):
                processor.add(secrets)


def _renderer() -> Processor:
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def name_the_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Class and place of an exception instead of its text, which could hold a person's data."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = named(error)
    return event


def named(error: BaseException) -> str:
    """``KeyError at spans.py:12``."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def forms(secret: str) -> set[str]:
    """The forms in which a secret may turn up: as it is, encoded for HTTP, quoted in JSON."""
    encoded = base64.b64encode(secret.encode()).decode()
    basic = base64.b64encode(f"{secret}:".encode()).decode()
    return {
        secret,
        encoded.rstrip("="),  # some cut the padding
        basic.rstrip("="),
        quote(secret, safe=""),
        quote_plus(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


class Redacted:
    """The last processor: what it lets through is what is written."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._forms: list[str] = []
        self.add(secrets)

    def add(self, secrets: Collection[str]) -> None:
        found = {form for secret in secrets if len(secret) >= SHORTEST for form in forms(secret)}
        self._forms = sorted(found.union(self._forms), key=len, reverse=True)

    def __call__(self, _logger: WrappedLogger, _method: str, line: EventDict | str) -> str:
        text = str(line)
        for form in self._forms:
            text = text.replace(form, "[secret]")
        return text
