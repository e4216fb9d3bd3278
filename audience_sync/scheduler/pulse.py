"""Whether the threads of the daemon are alive: what the watchdog of systemd asks.

A thread says when it begins something and how long that may take without a further word. A thread
that is idle says so each time it looks for work, so silence always means something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pulse:
    """Signs of life by name of the thread.

    Args:
        elapsed: seconds of a clock that never goes back, and that stands still in suspend.
    """

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._until: dict[tuple[str, object], float] = {}
        self._lock = threading.Lock()

    def beat(self, name: str, limit: float, who: object = None) -> None:
        """``name`` lives, and is heard of again within ``limit`` seconds.

        Args:
            who: of several of that name, such as before and after a reload. One does not speak
                for another.
        """
        with self._lock:
            self._until[name, who] = self._elapsed() + limit

    def end(self, name: str, who: object = None) -> None:
        """``name`` has ended as it should."""
        with self._lock:
            self._until.pop((name, who), None)

    def silent(self) -> list[str]:
        """Whoever should have been heard of by now."""
        now = self._elapsed()
        with self._lock:
            return sorted({name for (name, _), until in self._until.items() if now > until})
