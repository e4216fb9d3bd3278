"""A credential that may be rotated in the middle of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable


def same() -> None:
    """There is no other credential than the one that we have."""


class Credential:
    """What a destination's workers authenticate with; all of them share it.

    Args:
        reread: what the configuration has now, and ``None`` when that cannot be said. Asked only
            after the destination refused the one in use.
    """

    def __init__(self, value: str, reread: Callable[[], str | None] = same) -> None:
        self.value = value
        self._reread = reread
        self._lock = threading.Lock()

    def renewed(self, refused: str) -> bool:
        """Whether there is another one than ``refused`` by now; then it is the ``value``.

        Workers are refused at about the same time: the first one asks for all of them.
        """
        with self._lock:
            if self.value == refused:
                self.value = self._reread() or refused
            return self.value != refused
