"""Progress of deliveries as log lines: one a minute for each span."""

from __future__ import annotations

import threading
import time

import structlog

from audience_sync.domain.span import Span

log = structlog.get_logger(__name__)

EVERY = 60.0
"""Seconds between the lines of one span."""


class MinuteLines:
    """Called from the delivering threads with each span as it advances."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: dict[int, tuple[float, int]] = {}
        self._logged: dict[int, float] = {}

    def show(self, span: Span) -> None:
        now, books = time.monotonic(), span.books
        with self._lock:
            began, before = self._first.setdefault(span.id, (now, books.handled))
            if not books.remaining:
                self._first.pop(span.id)
                self._logged.pop(span.id, None)
                return
            if now - self._logged.setdefault(span.id, now) < EVERY:
                return
            self._logged[span.id] = now
        rate = (books.handled - before) / max(now - began, 0.001)
        log.info(
            "delivering",
            audience=span.audience,
            destination=span.destination,
            lane=str(span.lane),
            handled=books.handled,
            total=books.total,
            per_second=round(rate, 1),
            seconds_left=round(books.remaining / rate) if rate else None,
        )
