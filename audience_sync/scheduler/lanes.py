"""One loop for each destination and lane: an initial sync of hours delays nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, Span
from audience_sync.errors import DestinationPaused, QuotaUsed
from audience_sync.pipeline.delivered import Delivered
from audience_sync.scheduler import report
from audience_sync.scheduler.loop import LOOK_EVERY
from audience_sync.scheduler.patience import Patience
from audience_sync.standing.counters import Counters

if TYPE_CHECKING:
    from audience_sync.app import App

SILENT = 3600.0
"""Seconds. A batch may be put off for a quarter of an hour, and each try has a deadline."""


ONE_DAY = timedelta(days=1)

CANNOT_MOVE = 30.0
"""Seconds until what is open, but came to nothing without a pause, is tried again."""


class LaneTurns:
    """What the loop of one lane of one destination does in a turn.

    Args:
        name: of the loop.
        progress: called with each span as it advances.
    """

    def __init__(
        self,
        app: App,
        name: str,
        destination: str,
        lane: Lane,
        *,
        stop: threading.Event,
        patience: Patience,
        progress: Callable[[Span], None],
        clock: Callable[[], datetime],
        counters: Counters,
    ) -> None:
        self._app = app
        self._name = name
        self._destination = destination
        self._lane = lane
        self._stop = stop
        self._patience = patience
        self._progress = progress
        self._clock = clock
        self._counters = counters
        self._books: dict[int, Books] = {}
        self._held = report.OnceEach()
        self._was_paused = False
        self._quota_until: datetime | None = None

    def turn(self) -> float:
        """Deliver what waits.

        Raises:
            StoreFailed, LeaseLost: see ``Deliveries.lane``.
        """
        deliveries = self._app.deliveries(self._show, self._ended)
        to = deliveries.destinations.get(self._destination)
        if to is None or self._must_wait() or not deliveries.waits(self._destination, self._lane):
            return LOOK_EVERY
        return self._after(deliveries.lane(to, self._lane, self._stop))

    def _ended(self, delivered: Delivered) -> None:
        """What is held is found by every run, and said once."""
        span, outcome = delivered.span, delivered.outcome
        is_news = self._held.is_news(str(span.id), outcome if outcome == "held" else None)
        if is_news or outcome != "held":
            report.delivered(delivered)
        self._books.pop(span.id, None)

    def _show(self, span: Span) -> None:
        """Count what was handled since the span was last shown."""
        before, now = self._books.get(span.id, span.books), span.books
        for result in ("accepted", "rejected", "skipped"):
            members = getattr(now, result) - getattr(before, result)
            self._counters.delivered(self._destination, self._lane, result, members)
        self._books[span.id] = now
        self._progress(span)

    def _must_wait(self) -> bool:
        """A pause is probed now and then; when a person has ended it, at once."""
        pause = self._app.books.paused(self._destination)
        if pause is not None and pause.until is not None and pause.until > self._clock():
            return True
        if self._quota_until is not None:
            left = self._quota_until - self._clock()
            # Longer than a day: the clock was set back.
            if timedelta(0) < left <= ONE_DAY:
                return True
            self._quota_until = None
        if pause is None and self._was_paused:
            self._was_paused = False
            self._patience.succeeded(self._name)
        return self._patience.left(self._name) > 0

    def _after(self, done: Sequence[Delivered]) -> float:
        if all(delivered.outcome == "leased" for delivered in done):
            return LOOK_EVERY
        self._was_paused = any(isinstance(d.error, DestinationPaused) for d in done)
        used = [d.error.until for d in done if isinstance(d.error, QuotaUsed)]
        self._quota_until = min(used, default=None)
        if self._was_paused:
            self._patience.failed(self._name)
            return LOOK_EVERY
        self._patience.succeeded(self._name)
        moved = any(d.accepted or d.rejected or d.skipped or d.outcome == "completed" for d in done)
        if not moved:
            # What is open but cannot move just now: others must not wait long for it.
            self._patience.rest(self._name, CANNOT_MOVE)
        return 0.0 if moved else LOOK_EVERY
