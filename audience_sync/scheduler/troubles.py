"""What brought a turn of a loop to nothing: said, and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from audience_sync.errors import AudienceSyncError, StoreFailed
from audience_sync.scheduler.report import error_said
from audience_sync.standing.counters import Counters

log = structlog.get_logger("audience_sync")

REMIND_AFTER = 300.0
"""Seconds until the same trouble with the store is said again."""


class Troubles:
    """Of all loops of one configuration, which share a store: what is wrong with it is said once.

    Args:
        elapsed: seconds of a clock that never goes back.
    """

    def __init__(self, counters: Counters, elapsed: Callable[[], float]) -> None:
        self._counters = counters
        self._elapsed = elapsed
        self._failing: set[str] = set()
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def began(self, loop: str) -> None:
        self._counters.loop_began(loop)

    def failed(self, loop: str, error: Exception, seconds: float) -> None:
        """``loop`` goes on in ``seconds``."""
        again = {"loop": loop, "again_in_seconds": round(seconds)}
        if isinstance(error, StoreFailed):
            self._counters.store_failed(loop)
            if self._is_news(loop, str(error)):
                log.error("the store cannot be used", **again, **error_said(error))
        elif isinstance(error, AudienceSyncError):
            log.warning("interrupted", **again, **error_said(error))
        else:
            self._counters.loop_failed(loop)
            log.error("this is a bug", **again, exc_info=error)

    def succeeded(self, loop: str) -> None:
        """The store is well again when every loop that it failed has taken a turn."""
        with self._lock:
            if loop not in self._failing:
                return
            self._failing.remove(loop)
            if self._failing:
                return
            self._said.clear()
        log.info("the store can be used again")

    def _is_news(self, loop: str, text: str) -> bool:
        now = self._elapsed()
        with self._lock:
            self._failing.add(loop)
            if now - self._said.get(text, now - REMIND_AFTER) < REMIND_AFTER:
                return False
            self._said[text] = now
        return True
