"""What the daemon tells of itself to whoever watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from audience_sync.standing.counters import Counters

if TYPE_CHECKING:
    from audience_sync.app import App

TICKS_WITHIN = 30.0
"""Seconds. A main loop that was silent for longer hangs."""


class Facts(Protocol):
    """Asked from other threads at any time; every answer comes at once, without the store."""

    @property
    def counters(self) -> Counters: ...

    def app(self) -> App | None:
        """The program as it is wired now, another one after a reload; ``None`` before the first."""

    def ticked(self) -> bool:
        """Whether the main loop went round within the last ``TICKS_WITHIN`` seconds."""

    def stuck(self) -> bool:
        """Whether a thread has been silent for longer than anything in it may take."""
