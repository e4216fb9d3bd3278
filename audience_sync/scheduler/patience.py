"""How long to leave alone what went wrong: twice as long each time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Patience:
    """Counts failures by name. Used by several threads.

    Args:
        elapsed: seconds of a clock that never goes back.
        first: seconds to wait after a first failure.
        longest: seconds to wait at most.
    """

    def __init__(self, elapsed: Callable[[], float], *, first: float, longest: float) -> None:
        self._elapsed = elapsed
        self._first = first
        self._longest = longest
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def failed(self, name: str) -> float:
        """Leave ``name`` alone for a while; how long, in seconds."""
        with self._lock:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            wait = min(self._longest, self._first * 2.0 ** min(failures - 1, 10))
            self._until[name] = self._elapsed() + wait
        return wait

    def rest(self, name: str, seconds: float) -> None:
        """Leave ``name`` alone for so long; nothing failed."""
        with self._lock:
            self._until[name] = self._elapsed() + seconds

    def succeeded(self, name: str) -> None:
        with self._lock:
            self._failures.pop(name, None)
            self._until.pop(name, None)

    def left(self, name: str) -> float:
        """Seconds until ``name`` may be tried again; 0: now."""
        with self._lock:
            return max(0.0, self._until.get(name, 0.0) - self._elapsed())
