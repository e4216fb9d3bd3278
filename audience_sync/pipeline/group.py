"""Spans of a lane that are walked together, and what becomes of each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from audience_sync.domain.span import Span, SpanState
from audience_sync.errors import AudienceSyncError, ChunkDamaged, DestinationPaused
from audience_sync.pipeline.deliver import Walk
from audience_sync.pipeline.delivered import GOES_ON, Walked, ended
from audience_sync.pipeline.ports.delivering import Pauses, Spans
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.turn import Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Walks one group after another, in one turn."""

    destination: str
    walk: Walk
    turn: Turn
    spans: Spans
    pauses: Pauses
    lease: Lease
    stop: threading.Event
    progress: Callable[[Span], None]

    def walked(self, group: Sequence[Span]) -> list[Walked]:
        """Walk who is still wanted: a person may have ordered otherwise meanwhile."""
        go = [span for span in group if not self.stop.is_set() and self.spans.wanted(span)]
        done = [ended(span, None) for span in group if span not in go]
        if self.turn.over:
            return done + [ended(span, None, GOES_ON) for span in go]
        if not go:
            return done
        after, failure = self._flown(go)
        if isinstance(failure, ChunkDamaged) and len(go) > 1:
            # Which of them it is shows when each is walked by itself.
            return done + [walked for span in after for walked in self.walked([span])]
        if failure is not None:
            return done + [ended(span, failure) for span in after]
        return done + self._unless_stopped(go, after)

    def _unless_stopped(self, went: Sequence[Span], after: Sequence[Span]) -> list[Walked]:
        """``after`` a walk with which nothing went wrong: one that was stopped stops all."""
        left = [span for span in after if span.state is SpanState.OPEN]
        wanted = [] if self.stop.is_set() else [span for span in left if self.spans.wanted(span)]
        if self.turn.over or len(wanted) in (0, len(went)):
            otherwise = GOES_ON if self.turn.over else "stopped"
            return [ended(s, None, otherwise if s in wanted else "stopped") for s in after]
        return [ended(span, None) for span in after if span not in wanted] + self.walked(wanted)

    def _flown(self, group: Sequence[Span]) -> tuple[list[Span], AudienceSyncError | None]:
        """The spans as they are stored now, and what ended their walk."""
        latest = {span.id: span for span in group}
        probing = self.pauses.paused(self.destination) is not None
        resume = self._resume_after(group) if probing else _nothing
        progress = _each(lambda span: latest.update({span.id: span}), resume, self.progress)
        walk = replace(
            self.walk, progress=progress, probing=probing, others_first=self.turn.is_over
        )
        for span in group:
            self.progress(span)
        failure: AudienceSyncError | None = None
        try:
            return walk.deliver(group), None
        except DestinationPaused as paused:
            self.pauses.pause(self.destination, str(paused), paused.seconds, self.lease)
            failure = paused
        except AudienceSyncError as error:
            failure = error
        return list(latest.values()), failure

    def _resume_after(self, group: Sequence[Span]) -> Callable[[Span], None]:
        """The first acceptance after a pause ends the pause; refusals do not."""
        before = {span.id: span.books.accepted for span in group}
        paused = True

        def resume(span: Span) -> None:
            nonlocal paused
            if paused and span.books.accepted > before[span.id]:
                self.pauses.resume(self.destination, self.lease)
                paused = False

        return resume


def _nothing(_span: Span) -> None:
    pass


def _each(*functions: Callable[[Span], object]) -> Callable[[Span], None]:
    def call(span: Span) -> None:
        for function in functions:
            function(span)

    return call
