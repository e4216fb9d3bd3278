"""What one lane of a destination has to be told: spans that are open, and those to be opened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from audience_sync.domain.audience import AudienceKey
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanState
from audience_sync.errors import ChunkDamaged
from audience_sync.pipeline.delivered import Delivered
from audience_sync.pipeline.ports.delivering import Spans, Waiting
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.subscription import Subscription
from audience_sync.pipeline.unopened import unopened

log = structlog.get_logger(__name__)


@dataclass(kw_only=True, eq=False, slots=True)
class Opening:
    """Of one run. ``subscribed`` is asked each time: people give orders while a run goes on."""

    destination: str
    lane: Lane
    subscribed: Callable[[], Mapping[AudienceKey, Subscription]]
    spans: Spans
    lease: Lease
    clock: Callable[[], datetime]
    _unreadable: set[AudienceKey] = field(init=False, default_factory=set)
    _passed_over: list[Waiting] = field(init=False, default_factory=list)

    def open(self) -> Iterator[Delivered]:
        """Open what waits; what kept audiences from it. The others are told."""
        for span in self.spans.superseded(self.destination, self.lane):
            self.spans.abandon(span, self.lease)
        subscriptions = self.subscribed()
        self._passed_over = []
        for waiting in self._waiting(subscriptions):
            how = subscriptions[waiting.audience]
            try:
                self._open(waiting, how)
            except ChunkDamaged as error:
                self._unreadable.add(waiting.audience)
                log.error("not told", audience=waiting.audience, error=str(error))
                nothing = unopened(waiting, self.destination, tell=how.tell, now=self.clock())
                yield Delivered(span=nothing, outcome="failed", error=error)

    def unfinished(self) -> list[Span]:
        """Open and held spans of this run's audiences, oldest first."""
        subscriptions = self.subscribed()
        found = self.spans.unfinished(self.destination, self.lane)
        return [span for span in found if span.audience in subscriptions]

    def somebody_waits(self, known: Collection[int]) -> bool:
        """Whether there is anything to tell but what is ``known``, by the ids of spans."""
        if self.spans.superseded(self.destination, self.lane):
            return True
        if any(waiting not in self._passed_over for waiting in self._waiting(self.subscribed())):
            return True
        return any(
            span.state is SpanState.OPEN and span.id not in known and self.spans.wanted(span)
            for span in self.unfinished()
        )

    def _waiting(self, subscriptions: Mapping[AudienceKey, Subscription]) -> list[Waiting]:
        keys = subscriptions.keys() - self._unreadable
        found = self.spans.waiting(self.destination, keys)
        return [waiting for waiting in found if waiting.lane is self.lane]

    def _open(self, waiting: Waiting, how: Subscription) -> None:
        to, tell, limits = self.destination, how.tell, how.limits
        if self.spans.open(waiting, to, tell=tell, limits=limits, lease=self.lease) is None:
            # It would be so again at once; should anything change, it is no longer the same.
            self._passed_over.append(waiting)
