"""Logs: one format for our lines and those of libraries, on stderr, without secrets."""

from __future__ import annotations

import base64
import logging
import sys
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET = ("httpx", "httpcore", "alembic", "apscheduler")
"""Libraries whose INFO lines hold URLs or say nothing to an operator."""


def configure(secrets: Collection[str], *, verbose: bool = False) -> None:
    """Console lines on a terminal, one JSON object a line otherwise.

    Args:
        secrets: never shown, neither raw nor in base64 nor URL-encoded.
    """
    terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Redact(secrets),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def forms(secret: str) -> set[str]:
    """The forms in which a secret may turn up."""
    encoded = base64.b64encode(secret.encode()).decode()
    basic = base64.b64encode(f"{secret}:".encode()).decode()
    return {secret, encoded.rstrip("="), basic.rstrip("="), quote(secret, safe="")}


class _Redact:
    def __init__(self, secrets: Collection[str]) -> None:
        found = {form for secret in secrets if len(secret) > 3 for form in forms(secret)}
        self._forms = sorted(found, key=len, reverse=True)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: self._clean(value) for key, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for form in self._forms:
            value = value.replace(form, "[secret]")
        return value
