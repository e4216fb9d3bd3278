"""One delivery run: everything that one lane of one destination has to be told, in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanState
from audience_sync.errors import AudienceSyncError, ChunkDamaged, DestinationPaused, QuotaUsed
from audience_sync.pipeline.allowance import Allowance
from audience_sync.pipeline.amount_left import amount_left
from audience_sync.pipeline.deliver import Walk
from audience_sync.pipeline.delivered import GOES_ON, Accounts, Delivered, Walked, ended
from audience_sync.pipeline.group import Groups
from audience_sync.pipeline.lane_share import LaneShare
from audience_sync.pipeline.lane_time import lane_time
from audience_sync.pipeline.opening import Opening
from audience_sync.pipeline.ports.delivering import Pauses, Quotas, Spans
from audience_sync.pipeline.ports.destination import Destination
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.subscription import Subscription
from audience_sync.pipeline.turn import Turn
from audience_sync.pipeline.turns import in_turns


@dataclass(kw_only=True, eq=False, slots=True)
class LaneRun:
    """One lane of one destination, under its lease. Knows no source. To be used once."""

    destination: Destination
    lane: Lane
    subscribed: Callable[[], Mapping[AudienceKey, Subscription]]
    """The audiences of this run, as people want it now."""
    configured: Collection[AudienceKey]
    """All audiences of the destination: a first delivery of any takes its part of the rate."""
    spans: Spans
    pauses: Pauses
    quotas: Quotas
    lease: Lease
    installation: str
    stop: threading.Event
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    progress: Callable[[Span], None]
    """Called with each span as it is found, and after each commit."""
    error: AudienceSyncError | None = None
    """What the destination's other lane just met: everything waits for the next run."""
    _accounts: Accounts = field(init=False, default_factory=Accounts)
    _held: set[int] = field(init=False, default_factory=set)
    _damaged: set[int] = field(init=False, default_factory=set)
    _stopped: set[int] = field(init=False, default_factory=set)
    """By a person. Of all three sets it is said once, by the ids of spans."""

    def deliver(self) -> Iterator[Delivered]:
        """Open what is due and walk it, smallest first; with each thing that is due meanwhile
        begin anew. What became of a span is said as soon as it is known.

        What ends the delivery of one span ends the run: the destination pauses, the lane's part
        of the quota is used, or nothing can be written down, and every further request would be
        sent again. Only an audience that cannot be read says nothing of the others.
        """
        opening = Opening(
            destination=self.destination.name,
            lane=self.lane,
            subscribed=self.subscribed,
            spans=self.spans,
            lease=self.lease,
            clock=self.clock,
        )
        yield from opening.open()
        with closing(self._allowance()) as allowance:
            walk = self._walk(allowance)  # with the share of the rate that what is open leaves
            while (yield from self._turn(opening, walk)):
                yield from opening.open()

    def _turn(self, opening: Opening, walk: Walk) -> Generator[Delivered, None, bool]:
        """Whether another one follows."""
        unfinished = opening.unfinished()
        yield from self._accounts.gone(unfinished)
        yield from self._those_held(unfinished)
        spans = [span for span in unfinished if self._is_walked(span)]
        known = {span.id for span in spans} | self._damaged
        turn = Turn(lambda: opening.somebody_waits(known - self._stopped), self.elapsed)
        groups = self._groups(walk, turn)
        error = self.error or self._pause_goes_on() or self._quota_used(walk.allowance)
        wait_before, has_ended = 0, False
        for group in self._in_turns(spans):
            walked = self._walked(group, groups, error)
            errors = (one.error for one in walked if not isinstance(one.error, ChunkDamaged))
            error = error or next((one for one in errors if one is not None), None)
            used = [one.error for one in walked if isinstance(one.error, QuotaUsed)]
            waits = [one.span for one in walked if isinstance(one.error, QuotaUsed)]
            wait_before += amount_left(self.destination, self.spans, waits) if waits else 0
            done_at = self._done_at(wait_before, used[0].until) if used else None
            has_ended = has_ended or any(one.outcome == "completed" for one in walked)
            for one in walked:
                yield from self._said(one, done_at if one.span in waits else None)
            if turn.over and error is None and not self.stop.is_set():
                return True
        # What changed while a delivery was unfinished has waited for its end.
        goes_on = has_ended and error is None and not self.stop.is_set()
        return goes_on and turn.somebody_waits()

    def _those_held(self, unfinished: Sequence[Span]) -> Iterator[Delivered]:
        for span in unfinished:
            if span.state is SpanState.HELD and span.id not in self._held:
                self._held.add(span.id)
                yield Delivered(span=span, outcome="held")

    def _is_walked(self, span: Span) -> bool:
        if span.state is not SpanState.OPEN or span.id in self._damaged:
            return False
        if span.id in self._stopped and not self.spans.wanted(span):
            return False
        self._stopped.discard(span.id)
        return True

    def _walked(
        self, group: Sequence[Span], groups: Groups, error: AudienceSyncError | None
    ) -> Sequence[Walked]:
        if error is not None:
            return [ended(span, error) for span in group]
        self._accounts.begin(group)
        return groups.walked(group)

    def _said(self, walked: Walked, done_at: datetime | None) -> Iterator[Delivered]:
        span = walked.span
        if walked.outcome == GOES_ON:
            self._accounts.goes_on(span)
            return
        if isinstance(walked.error, ChunkDamaged):
            self._damaged.add(span.id)
        if walked.outcome == "stopped":
            self._stopped.add(span.id)
        yield self._accounts.said(walked, done_at=done_at)

    def _in_turns(self, spans: Sequence[Span]) -> list[list[Span]]:
        """Those that are walked together."""
        now = self.clock()
        return in_turns(self.destination, self.lane, spans, now=now, used=self._used(now))

    def _pause_goes_on(self) -> DestinationPaused | None:
        pause = self.pauses.paused(self.destination.name)
        if pause is None or pause.until is None or pause.until <= self.clock():
            return None
        return DestinationPaused(pause.reason, hint=f"goes on after {pause.until:%H:%M} UTC")

    def _quota_used(self, allowance: Allowance) -> QuotaUsed | None:
        """Seen before anything is read or written for it."""
        return allowance.used_up() if allowance.left() == 0 else None

    def _done_at(self, amount: int, goes_on: datetime) -> datetime:
        """Whose quota it is that is used: ours, or one that the destination has."""
        return goes_on + lane_time(self.destination, self.lane, amount, now=goes_on, used={})

    def _used(self, now: datetime) -> Mapping[Lane, int]:
        return self.quotas.used(self.destination.name, now.astimezone(UTC).date())

    def _allowance(self) -> Allowance:
        return Allowance(
            destination=self.destination,
            lane=self.lane,
            quotas=self.quotas,
            lease=self.lease,
            clock=self.clock,
        )

    def _groups(self, walk: Walk, turn: Turn) -> Groups:
        return Groups(
            destination=self.destination.name,
            walk=walk,
            turn=turn,
            spans=self.spans,
            pauses=self.pauses,
            lease=self.lease,
            stop=self.stop,
            progress=self.progress,
        )

    def _walk(self, allowance: Allowance) -> Walk:
        share = LaneShare(
            destination=self.destination,
            lane=self.lane,
            spans=self.spans,
            configured=self.configured,
            elapsed=self.elapsed,
        )
        return Walk(
            destination=self.destination,
            spans=self.spans,
            lease=self.lease,
            pace=share.pace,
            keep_pace=share.keep,
            allowance=allowance,
            stop=self.stop,
            installation=self.installation,
            saved=self._accounts.saved,
        )
