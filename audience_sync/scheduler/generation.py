"""Everything that works for one configuration; a reload replaces it by another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span
from audience_sync.pipeline.captures import Configured
from audience_sync.scheduler import report
from audience_sync.scheduler.agenda import Capturing
from audience_sync.scheduler.cycles import Cycles
from audience_sync.scheduler.lanes import SILENT, LaneTurns
from audience_sync.scheduler.loop import LOOK_EVERY, Loop
from audience_sync.scheduler.patience import Patience
from audience_sync.scheduler.progress import MinuteLines
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.slot import Slot
from audience_sync.scheduler.troubles import Troubles
from audience_sync.standing.counters import Counters
from audience_sync.store import overview

if TYPE_CHECKING:
    from audience_sync.app import App

log = structlog.get_logger(__name__)

JUMP = 2.0
"""Seconds by which the clock may differ from the time that passed without anybody being told."""

LOOK_SILENT = 300.0
"""Seconds that one look into the store may take: its lock may be waited for more than once."""


class Generation:
    """The capture cycles, one loop for each lane, and the look that wakes them.

    Args:
        elapsed: seconds of a clock that never goes back and goes on in suspend.
    """

    def __init__(
        self,
        app: App,
        *,
        slot: Slot,
        pulse: Pulse,
        clock: Callable[[], datetime],
        elapsed: Callable[[], float],
        counters: Counters,
    ) -> None:
        self.app = app
        self.next_cycle: datetime | None = None
        self._clock = clock
        self._elapsed = elapsed
        self._stop = threading.Event()
        self._patience = Patience(elapsed, first=2.0, longest=30.0)
        """With what we need ourselves, such as the store."""
        self._outside = Patience(elapsed, first=30.0, longest=300.0)
        """With sources and destinations."""
        self._pulse = pulse
        self._counters = counters
        self._troubles = Troubles(counters, elapsed)
        self._progress = MinuteLines()
        self._lanes = [self._lane(name, lane) for name in app.destinations for lane in Lane]
        self._cycles = Cycles(
            app,
            stop=self._stop,
            slot=slot,
            patience=self._outside,
            pulse=pulse,
            clock=clock,
            changed=self._nudge,
            counters=counters,
            troubles=self._troubles,
        )
        self._look = self._loop("look", self._turn, LOOK_SILENT)
        self._offset = self._now_offset()

    def start(self) -> None:
        self._cycles.start()
        for loop in (self._look, *self._lanes):
            loop.start()

    def stop(self) -> None:
        """No new work; what is in flight is finished."""
        self._stop.set()
        self._cycles.shutdown()
        for loop in (self._look, *self._lanes):
            loop.nudge()

    def join_deliveries(self, seconds: float) -> bool:
        """Whether nothing is sent any more within ``seconds``."""
        return self._joined(seconds, *(loop.join for loop in (self._look, *self._lanes)))

    def join(self, seconds: float) -> bool:
        """Whether everything has ended within ``seconds``; then the store may be closed."""
        started = time.monotonic()
        delivered = self.join_deliveries(seconds)
        left = seconds - (time.monotonic() - started)
        return self._cycles.join(max(0.0, left)) and delivered

    def _joined(self, seconds: float, *joins: Callable[[float], bool]) -> bool:
        over = time.monotonic() + seconds
        ended = [join(max(0.0, over - time.monotonic())) for join in joins]
        return all(ended)

    def _loop(self, name: str, turn: Callable[[], float], limit: float) -> Loop:
        return Loop(
            name,
            turn,
            stop=self._stop,
            patience=self._patience,
            pulse=self._pulse,
            limit=limit,
            troubles=self._troubles,
        )

    def _lane(self, destination: str, lane: Lane) -> Loop:
        name = f"deliver:{destination}:{lane}"

        def progress(span: Span) -> None:
            loop.beat()
            self._progress.show(span)

        turns = LaneTurns(
            self.app,
            name,
            destination,
            lane,
            stop=self._stop,
            patience=self._outside,
            progress=progress,
            clock=self._clock,
            counters=self._counters,
        )
        loop = self._loop(name, turns.turn, SILENT)
        return loop

    def _nudge(self) -> None:
        """Something has changed in the store."""
        for loop in (self._look, *self._lanes):
            loop.nudge()

    def _turn(self) -> float:
        self._notice_jump()
        admission = self.app.admission()
        for configured in admission.to_retire(self.app.audiences.values()):
            self._retire(configured)
        known = overview.audiences(self.app.database)
        self.next_cycle = self._cycles.look(
            {
                key: Capturing(last=state.captured_at, due=state.next_due)
                for key, state in known.items()
            }
        )
        return LOOK_EVERY

    def _retire(self, configured: Configured) -> None:
        key = configured.audience.key
        if self._outside.left(key):
            return
        outcome = self.app.retire_by_file(configured)
        report.captured(outcome)
        self._counters.captured(outcome.audience, outcome.outcome)
        if outcome.outcome == "failed":
            self._outside.failed(key)

    def _notice_jump(self) -> None:
        """Alarms are counted in time that passes: a clock that was set leaves them wrong."""
        before, self._offset = self._offset, self._now_offset()
        moved = self._offset - before
        if abs(moved) > JUMP:
            log.warning("the clock was set", seconds=round(moved, 1))
            self._cycles.wake()

    def _now_offset(self) -> float:
        return self._clock().timestamp() - self._elapsed()
