"""One delivery run: everything that one lane of one destination has to be told."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from audience_sync.domain.audience import AudienceKey, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane, share
from audience_sync.domain.span import Span, SpanState
from audience_sync.errors import AudienceSyncError, ChunkDamaged, DestinationPaused
from audience_sync.pipeline.deliver import Walk
from audience_sync.pipeline.ports import Destination, Lease, Pauses, Spans, Waiting
from audience_sync.pipeline.send import SharedPace

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """How one audience is told."""

    tell: frozenset[Tell]
    limits: Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What became of one span in one run.

    ``outcome``: ``completed``, ``stopped`` (time over, or asked to stop), ``held``, ``paused``
    or ``failed``. The counts are this run's; what still waits is in ``span``.
    """

    span: Span
    outcome: str
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    error: AudienceSyncError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneRun:
    """One lane of one destination, under its lease. Knows no source."""

    destination: Destination
    lane: Lane
    subscriptions: Mapping[AudienceKey, Subscription]
    """The audiences of this run."""
    configured: Collection[AudienceKey]
    """All audiences of the destination: a first delivery of any takes its part of the rate."""
    spans: Spans
    pauses: Pauses
    lease: Lease
    installation: str
    stop: threading.Event
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    progress: Callable[[Span], None]
    error: AudienceSyncError | None = None
    """What the destination's other lane just met: everything waits for the next run."""

    def deliver(self) -> Iterator[Delivered]:
        """Open what is due, then walk span after span, oldest first.

        What ends the delivery of one span ends the run: the destination pauses, or nothing can
        be written down, and every further request would be sent again. Only an audience that
        cannot be read says nothing of the others.
        """
        damaged = self._open_spans()
        spans = [
            span
            for span in self.spans.unfinished(self.destination.name, self.lane)
            if span.audience in self.subscriptions
        ]
        walk = self._walk()
        error = self.error or self._pause_goes_on()
        for span in spans:
            delivered = self._deliver(span, walk, error)
            if not isinstance(delivered.error, ChunkDamaged):
                error = error or delivered.error
            yield delivered
        if damaged:
            raise damaged[0]

    def _pause_goes_on(self) -> DestinationPaused | None:
        pause = self.pauses.paused(self.destination.name)
        if pause is None or pause.until is None or pause.until <= self.clock():
            return None
        return DestinationPaused(pause.reason, hint=f"goes on after {pause.until:%H:%M} UTC")

    def _open_spans(self) -> list[ChunkDamaged]:
        """What kept audiences from being opened: the others are told before it is raised."""
        damaged: list[ChunkDamaged] = []
        for span in self.spans.superseded(self.destination.name, self.lane):
            self.spans.abandon(span, self.lease)
        for waiting in self.spans.waiting(self.destination.name, self.subscriptions.keys()):
            if waiting.lane is self.lane:
                try:
                    self._open(waiting)
                except ChunkDamaged as error:
                    log.error("not told", audience=waiting.audience, error=str(error))
                    damaged.append(error)
        return damaged

    def _open(self, waiting: Waiting) -> None:
        how, name = self.subscriptions[waiting.audience], self.destination.name
        self.spans.open(waiting, name, tell=how.tell, limits=how.limits, lease=self.lease)

    def _walk(self) -> Walk:
        initial_open = any(
            span.state is SpanState.OPEN and span.audience in self.configured
            for span in self.spans.unfinished(self.destination.name, Lane.INITIAL)
        )
        part = share(self.lane, reserve=self.destination.reserve, initial_open=initial_open)
        return Walk(
            destination=self.destination,
            spans=self.spans,
            lease=self.lease,
            pace=SharedPace(self.destination.rate * part, self.elapsed),
            stop=self.stop,
            installation=self.installation,
        )

    def _resume_after(self, before: Span) -> Callable[[Span], None]:
        """The first acceptance after a pause ends the pause; refusals do not."""
        paused = True

        def resume(span: Span) -> None:
            nonlocal paused
            if paused and span.books.accepted > before.books.accepted:
                self.pauses.resume(self.destination.name, self.lease)
                paused = False

        return resume

    def _deliver(self, span: Span, walk: Walk, error: AudienceSyncError | None) -> Delivered:
        if span.state is SpanState.HELD:
            return Delivered(span=span, outcome="held")
        if error is not None:
            outcome = "paused" if isinstance(error, DestinationPaused) else "failed"
            return Delivered(span=span, outcome=outcome, error=error)
        # A person may have ordered otherwise while others were walked.
        if self.stop.is_set() or not self.spans.wanted(span):
            return Delivered(span=span, outcome="stopped")
        return self._walked(span, walk)

    def _walked(self, span: Span, walk: Walk) -> Delivered:
        failure: AudienceSyncError | None = None
        latest = deque([span], maxlen=1)
        probing = self.pauses.paused(self.destination.name) is not None
        resume = self._resume_after(span) if probing else _nothing
        progress = _each(latest.append, resume, self.progress)
        walk = replace(walk, progress=progress, probing=probing)
        try:
            after = walk.deliver(span)
            outcome = "completed" if after.state is SpanState.COMPLETED else "stopped"
        except DestinationPaused as paused:
            self.pauses.pause(self.destination.name, str(paused), paused.seconds, self.lease)
            outcome, failure, after = "paused", paused, latest[-1]
        except AudienceSyncError as error:
            outcome, failure, after = "failed", error, latest[-1]
        return Delivered(
            span=after,
            outcome=outcome,
            accepted=after.books.accepted - span.books.accepted,
            rejected=after.books.rejected - span.books.rejected,
            skipped=after.books.skipped - span.books.skipped,
            error=failure,
        )


def _nothing(_span: Span) -> None:
    pass


def _each(*functions: Callable[[Span], object]) -> Callable[[Span], None]:
    def call(span: Span) -> None:
        for function in functions:
            function(span)

    return call
