"""Alarms that have come and began nothing."""

from __future__ import annotations

import time

LOST_AFTER = 60.0
"""Seconds. APScheduler drops an alarm when no thread can be started for it."""


class Overdue:
    """Belongs to one thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def is_lost(self, alarm: str, *, waits: bool) -> bool:
        """Whether nothing has come of ``alarm`` for too long.

        Args:
            waits: its time has come, and its loop is free.
        """
        if not waits:
            self._since.pop(alarm, None)
            return False
        now = time.monotonic()
        return now - self._since.setdefault(alarm, now) > LOST_AFTER

    def forget(self, alarm: str) -> None:
        self._since.pop(alarm, None)
