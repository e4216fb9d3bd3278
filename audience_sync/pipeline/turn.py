"""How long the walks of a lane go on before somebody else is told."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from audience_sync.errors import StoreFailed

LOOK_EVERY = 5.0
"""Seconds for which an audience that has something to be told may not be seen, while others are
told. It is a few small queries of the store."""

log = structlog.get_logger(__name__)


class Turn:
    """Over as soon as somebody waits of whom nothing was known when it began.

    Args:
        somebody_waits: asked every ``LOOK_EVERY`` seconds, by the thread that walks.
        elapsed: seconds of a clock that never goes back.
    """

    def __init__(self, somebody_waits: Callable[[], bool], elapsed: Callable[[], float]) -> None:
        self.over = False
        self._somebody_waits = somebody_waits
        self._elapsed = elapsed
        self._looked_at = elapsed()

    def is_over(self) -> bool:
        """Look again, if it is time to."""
        now = self._elapsed()
        if not self.over and now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self.over = self.somebody_waits()
        return self.over

    def somebody_waits(self) -> bool:
        """Look now."""
        try:
            return self._somebody_waits()
        except StoreFailed as error:  # what is in flight is still to be written down
            log.warning("not known whether anybody waits", error=str(error))
            return False
