"""Capture cycles: who is due is captured, source by source, when an alarm rings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from audience_sync.domain.audience import AudienceKey
from audience_sync.pipeline.admission import Admission
from audience_sync.pipeline.captures import CaptureOutcome, Captures, Configured
from audience_sync.scheduler import report
from audience_sync.scheduler.agenda import Capturing, Group, groups, next_cycle
from audience_sync.scheduler.alarms import Alarms
from audience_sync.scheduler.loop import LOOK_EVERY
from audience_sync.scheduler.overdue import LOST_AFTER
from audience_sync.scheduler.patience import Patience
from audience_sync.scheduler.pulse import Pulse
from audience_sync.scheduler.slot import ComparedInSlot, ReadInSlot, Slot, SlotWithdrawn
from audience_sync.scheduler.troubles import Troubles
from audience_sync.standing.counters import Counters

if TYPE_CHECKING:
    from audience_sync.app import App

SILENT = 7200.0
"""Seconds that one capture may take before its thread counts as stuck. Sources have limits of
their own, far below; this one is for what nobody thought of."""

AFTER_A_FAILURE = 15.0
"""Seconds until a cycle that the store did not let end begins again."""


class Cycles:
    """Captures audiences when they are due: those of one source one after another.

    The store says what is due, and ``look`` asks it every few seconds.

    Args:
        slot: one capture at a time compares.
        changed: called after each capture that gave a destination something to be told.
    """

    def __init__(
        self,
        app: App,
        *,
        stop: threading.Event,
        slot: Slot,
        patience: Patience,
        pulse: Pulse,
        clock: Callable[[], datetime],
        changed: Callable[[], None],
        counters: Counters,
        troubles: Troubles,
    ) -> None:
        self._app = app
        self._stop = stop
        self._slot = slot
        self._patience = patience
        self._pulse = pulse
        self._clock = clock
        self._changed = changed
        self._counters = counters
        self._troubles = troubles
        self._groups = groups(app.audiences.values())
        self._with_losses: set[str] = set()
        self._left_out = report.OnceEach()
        self._loops = sorted({group.loop for group in self._groups})
        self._alarms = Alarms(
            self._loops, cycle=self._cycle, ended=changed, lost=self._note_loss, clock=clock
        )

    def start(self) -> None:
        for loop in self._loops:
            self._troubles.began(loop)
        self._alarms.start()

    def shutdown(self) -> None:
        """Begin no further cycle; one that is under way ends with its present audience.

        May be called again, and before ``start``.
        """
        self._alarms.shutdown()

    def join(self, seconds: float) -> bool:
        """Whether what was under way has ended within ``seconds``."""
        return self._alarms.join(seconds)

    def look(self, capturings: dict[str, Capturing]) -> datetime | None:
        """Set the alarms by what the store knows; when the next cycle is.

        Args:
            capturings: by audience key.
        """
        admission = self._app.admission()
        times = [
            self._alarms.set(group, at)
            for group in self._groups
            if (at := self._next(group, admission, capturings)) is not None
        ]
        return min(times, default=None)

    def wake(self) -> None:
        """The clock was set: alarms are counted anew."""
        self._alarms.wake()

    def _next(
        self, group: Group, admission: Admission, capturings: dict[str, Capturing]
    ) -> datetime | None:
        if self._patience.left(group.name):
            return None
        wanted = [
            capturings.get(configured.audience.key, Capturing())
            for configured in self._admitted(group.audiences, admission)
            if not self._patience.left(configured.audience.key)
        ]
        return next_cycle(wanted, self._clock())

    def _admitted(self, audiences: Sequence[Configured], admission: Admission) -> list[Configured]:
        admitted = []
        for configured in audiences:
            refusal = admission.refusal(configured)
            text = f"{refusal.outcome} {refusal.error or ''}" if refusal else None
            if self._left_out.is_news(configured.audience.key, text) and refusal:
                report.left_out(refusal)
            if refusal is None:
                admitted.append(configured)
        return admitted

    def _note_loss(self, loop: str) -> None:
        """The second one in a row is for whoever watches us: captures have come to a stand."""
        if loop not in self._with_losses:
            self._pulse.beat(loop, LOST_AFTER, self)
            self._with_losses.add(loop)

    def _cycle(self, group: Group) -> None:
        """Everybody of the group who is due, at one cycle time."""
        self._with_losses.discard(group.loop)
        try:
            self._capture_all(group)
        except SlotWithdrawn:
            pass
        except Exception as error:
            self._patience.rest(group.name, AFTER_A_FAILURE)
            self._troubles.failed(group.loop, error, AFTER_A_FAILURE)
        else:
            self._troubles.succeeded(group.loop)
        finally:
            self._pulse.end(group.loop, self)

    def _captures(self) -> Captures:
        captures = self._app.captures()
        engine = ComparedInSlot(engine=captures.engine, slot=self._slot, stop=self._stop)
        return replace(captures, engine=engine)

    def _in_slot(self, configured: Configured) -> Configured:
        """Files are read with the memory of the comparison; a database computes by itself."""
        if self._app.config.sources[configured.audience.source].type != "files":
            return configured
        source = ReadInSlot(source=configured.source, slot=self._slot, stop=self._stop)
        return replace(configured, source=source)

    def _capture_all(self, group: Group) -> None:
        captures, admission = self._captures(), self._app.admission()
        cycle_time = self._clock().replace(microsecond=0)
        for configured in self._admitted(group.audiences, admission):
            if self._stop.is_set():
                return
            key = configured.audience.key
            if self._patience.left(key) or not captures.due(configured, cycle_time):
                continue
            self._pulse.beat(group.loop, SILENT, self)
            outcome = captures.capture(self._in_slot(configured), cycle_time, only_if_due=True)
            report.captured(outcome)
            self._counters.captured(key, outcome.outcome)
            self._note(key, outcome)
            self._changed()

    def _note(self, key: AudienceKey, outcome: CaptureOutcome) -> None:
        if outcome.outcome == "leased":
            self._patience.rest(key, LOOK_EVERY)
        elif outcome.error is not None:
            self._patience.failed(key)
        else:
            self._patience.succeeded(key)
