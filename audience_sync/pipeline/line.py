"""Batches in line: the first request of each leaves after that of the batch before.

A stop ends whoever has not begun. Were that a batch in front of one that was sent, the position
could not move over the latter, which would be sent again.
"""

from __future__ import annotations

import threading

LONGEST = 1.0
"""Seconds to wait for the one before. It may itself need what we hold, such as a profile's turn;
then a stop at that very moment may repeat a batch."""


class Line:
    """The place of one batch."""

    def __init__(self, before: Line | None = None) -> None:
        self._over = threading.Event()
        self._before = before._over if before else None

    def wait(self) -> None:
        """Until the batch before has begun, or ended."""
        if self._before is not None:
            self._before.wait(LONGEST)
            self._before = None

    def leave(self) -> None:
        """The next one may begin. May be called again."""
        self._over.set()
