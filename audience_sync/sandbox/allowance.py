"""Quotas per day, rates per second, and what day it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta

MOST_DAYS = 100_000
"""That a test may turn; the calendar ends."""

BURST = 1.0
"""Seconds of a rate that may be used at once."""


class Days:
    """Days of UTC; a test may turn to the next one."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._turned = 0

    def today(self) -> date:
        return self._clock().date() + timedelta(days=self._turned)

    def turn(self, days: int) -> None:
        self._turned = min(self._turned + days, MOST_DAYS)


class Quotas:
    """Requests of each tier on each day."""

    def __init__(self, days: Days, limit: Callable[[str], int | None]) -> None:
        self._days = days
        self._limit = limit
        self._day = days.today()
        self._used: Counter[str] = Counter()

    def take(self, tier: str) -> bool:
        """Whether there was one left."""
        limit, used = self._limit(tier), self.used(tier)
        if limit is not None and used >= limit:
            return False
        self._used[tier] += 1
        return True

    def used(self, tier: str) -> int:
        if self._day != self._days.today():
            self._day = self._days.today()
            self._used.clear()
        return self._used[tier]


class Rate:
    """A bucket that fills by ``per_second``; without it there is always enough."""

    def __init__(self, per_second: float | None, elapsed: Callable[[], float]) -> None:
        self._per_second = per_second
        self._elapsed = elapsed
        self._size = max(1.0, (per_second or 0.0) * BURST)
        self._left = self._size
        self._at = elapsed()

    def take(self, number: int = 1) -> float:
        """0: taken. Else the seconds until ``number`` can be.

        More than fits into the bucket can be taken when it is full, and leaves a debt.
        """
        if self._per_second is None:
            return 0.0
        now = self._elapsed()
        self._left = min(self._size, self._left + (now - self._at) * self._per_second)
        self._at = now
        wanted = min(float(number), self._size)
        if self._left < wanted:
            return (wanted - self._left) / self._per_second
        self._left -= number
        return 0.0
