"""A thread of the daemon: one turn after another until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from audience_sync.scheduler.patience import Patience
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.troubles import Troubles

LOOK_EVERY = 5.0
"""Seconds between two looks into the store for work that nobody told us of: another process, a
person's order, a clock that was set."""


class Loop:
    """Takes turns in a thread of its own; what one turn raises ends that turn only.

    Args:
        turn: does what there is to do; seconds until the next turn, unless nudged.
        limit: seconds that a turn may take without a word; see ``Pulse``.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], float],
        *,
        stop: threading.Event,
        patience: Patience,
        pulse: Pulse,
        limit: float,
        troubles: Troubles,
    ) -> None:
        self.name = name
        self._turn = turn
        self._stop = stop
        self._patience = patience
        self._pulse = pulse
        self._limit = limit
        self._troubles = troubles
        self._nudged = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._troubles.began(self.name)
        self._thread.start()

    def nudge(self) -> None:
        """Take the next turn at once."""
        self._nudged.set()

    def join(self, seconds: float) -> bool:
        """Whether it has ended within ``seconds``, or never began."""
        if self._thread.ident is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def beat(self) -> None:
        self._pulse.beat(self.name, self._limit, self)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.beat()
            wait = self._guarded()
            self._pulse.beat(self.name, wait + self._limit, self)
            self._nudged.wait(wait)
            self._nudged.clear()
        self._pulse.end(self.name, self)

    def _guarded(self) -> float:
        try:
            seconds = self._turn()
        except Exception as error:
            wait = self._patience.failed(self.name)
            self._troubles.failed(self.name, error, wait)
            return wait
        self._patience.succeeded(self.name)
        self._troubles.succeeded(self.name)
        return seconds
